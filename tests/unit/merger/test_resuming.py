"""A merge that was cut short goes on with what is whole, makes the rest anew, and never shows half a model."""

from __future__ import annotations

import errno
import os
import signal
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from lora_merger.merging import Merged, MergeRequest, merge
from lora_merger.refusal import ExitCode, Refusal
from lora_merger.stopping import Stop
from lora_merger.workplace import workplace
from lora_operator.adapter import WEIGHTS, open_directory
from support.adapters import make_adapter
from support.checkpoints import files_of, write_base

SHARDS = 4


class CutError(Exception):
    """The end of a run."""


@pytest.fixture
def request_(tmp_path: Path) -> MergeRequest:
    write_base(tmp_path / "base", shards=SHARDS)
    make_adapter().write(tmp_path / "adapter")
    return MergeRequest(base=str(tmp_path / "base"), adapter=str(tmp_path / "adapter"), out=tmp_path / "out", threads=1)


def place(request: MergeRequest) -> Path:
    return request.out.with_name(f".{request.out.name}.lora-merge")


def cut_short(request: MergeRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Merge, and end where everything but the publishing is done."""
    with monkeypatch.context() as patch:
        patch.setattr("lora_merger.workplace.Workplace.publish", _cut)
        with pytest.raises(CutError):
            merge(request)
    assert not request.out.exists()


def _cut(_: object) -> None:
    raise CutError


def undisturbed(request: MergeRequest) -> dict[str, bytes]:
    """Return what an undisturbed run makes."""
    merge(request)
    files = files_of(request.out)
    request.out.rename(request.out.with_name("undisturbed"))
    return files


def go_on(request: MergeRequest) -> Merged:
    """Run it again; the place of the merge is gone after it."""
    merged = merge(request)
    assert not place(request).exists()
    return merged


def test_finished_shards_are_kept(request_: MergeRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = undisturbed(request_)
    cut_short(request_, monkeypatch)
    assert go_on(request_).resumed == SHARDS
    assert files_of(request_.out) == expected


def test_a_shard_that_is_not_what_the_journal_says_is_made_anew(
    request_: MergeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = undisturbed(request_)
    cut_short(request_, monkeypatch)
    shards = sorted((place(request_) / "model").glob("*.safetensors"))
    data = bytearray(shards[0].read_bytes())
    data[-1] ^= 1
    shards[0].write_bytes(data)
    shards[1].unlink()
    assert go_on(request_).resumed == SHARDS - 2
    assert files_of(request_.out) == expected


@pytest.mark.parametrize("tail", [b'{"name": "model-0000', b"not JSON\n", b"[1]\n", b'{"name": 1}\n'])
def test_a_torn_journal_is_read_as_far_as_it_is_whole(
    request_: MergeRequest, monkeypatch: pytest.MonkeyPatch, tail: bytes
) -> None:
    expected = undisturbed(request_)
    cut_short(request_, monkeypatch)
    journal = place(request_) / "journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:3]) + tail)
    assert go_on(request_).resumed == 2
    assert files_of(request_.out) == expected


@pytest.mark.parametrize("change", ["adapter", "base", "dtype"])
def test_nothing_is_kept_of_another_merge(
    request_: MergeRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: str
) -> None:
    cut_short(request_, monkeypatch)
    dtype = None
    if change == "adapter":
        make_adapter(seed=1).write(tmp_path / "adapter")
    elif change == "base":
        write_base(tmp_path / "base", shards=SHARDS, seed=8)
    else:
        dtype = "bfloat16"
    again = MergeRequest(
        base=request_.base,
        adapter=request_.adapter,
        out=request_.out,
        dtype=dtype,  # type: ignore[arg-type]
        verify=True,
    )
    assert go_on(again).resumed == 0


def test_a_signal_ends_it_between_two_blocks_and_it_goes_on_later(request_: MergeRequest) -> None:
    expected = undisturbed(request_)
    stop = Stop()
    with pytest.raises(Refusal, match="run it again to go on") as caught:
        merge(request_, progress=lambda *_: stop.set(signal.SIGINT), stop=stop)
    assert caught.value.code == ExitCode.INTERRUPTED
    assert not request_.out.exists()
    go_on(request_)
    assert files_of(request_.out) == expected


def test_two_merges_do_not_write_the_same_place(request_: MergeRequest) -> None:
    with workplace(request_.out), pytest.raises(Refusal, match="another merge is writing") as caught:
        merge(request_)
    assert caught.value.code == ExitCode.OUTPUT_EXISTS
    assert not (place(request_) / "journal").exists()
    go_on(request_)


def test_a_base_that_changes_meanwhile_is_not_published(request_: MergeRequest) -> None:
    shard = max(Path(request_.base).glob("*.safetensors"))

    def touch(*_: object) -> None:
        os.utime(shard, ns=(1, 1))

    with pytest.raises(Refusal, match="the base changed while it was read"):
        merge(request_, progress=touch)
    assert not request_.out.exists()


def test_a_base_that_shrinks_meanwhile_is_a_read_error(request_: MergeRequest) -> None:
    shard = max(Path(request_.base).glob("*.safetensors"))
    with pytest.raises(Refusal) as caught:
        merge(request_, progress=lambda *_: os.truncate(shard, 200_000))
    assert caught.value.code == ExitCode.INPUT_OUTPUT
    assert shard.name in str(caught.value)
    assert not request_.out.exists()


def test_a_directory_that_appears_meanwhile_is_left_alone(request_: MergeRequest) -> None:
    def appear(*_: object) -> None:
        request_.out.mkdir(exist_ok=True)
        (request_.out / "mine").touch()

    with pytest.raises(Refusal, match="appeared while the merge ran"):
        merge(request_, progress=appear)
    assert [path.name for path in request_.out.iterdir()] == ["mine"]


def test_what_the_base_has_lost_since_is_not_carried_over(
    request_: MergeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_short(request_, monkeypatch)
    (Path(request_.base) / "tokenizer.json").unlink()
    (place(request_) / "model" / "folder").mkdir()
    expected = undisturbed(replace(request_, out=request_.out.with_name("other")))
    assert go_on(request_).resumed == SHARDS
    assert files_of(request_.out) == expected


def test_a_shard_whose_base_changed_behind_its_header_is_made_anew(
    request_: MergeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_short(request_, monkeypatch)
    shard = max(Path(request_.base).glob("*.safetensors"))
    facts = shard.stat()
    data = bytearray(shard.read_bytes())
    data[-3] ^= 1
    shard.write_bytes(data)
    os.utime(shard, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert go_on(replace(request_, verify=True)).resumed == SHARDS - 1


def test_a_place_that_leads_elsewhere_is_not_written_through(request_: MergeRequest, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").touch()
    place(request_).symlink_to(victim)
    with pytest.raises(Refusal, match="was not left by a merge of this user") as caught:
        merge(request_)
    assert caught.value.code == ExitCode.OUTPUT_EXISTS
    assert [path.name for path in victim.iterdir()] == ["precious"]


def test_a_file_in_the_place_of_a_place_is_left_alone(request_: MergeRequest) -> None:
    place(request_).touch()
    with pytest.raises(Refusal, match="it is no directory") as caught:
        merge(request_)
    assert caught.value.code == ExitCode.OUTPUT_EXISTS


@pytest.mark.parametrize("name", ["model", "lock", "journal.new"])
def test_nothing_in_a_place_is_followed_elsewhere(request_: MergeRequest, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir() if name == "model" else victim.write_bytes(b"precious")
    place(request_).mkdir(mode=0o700)
    (place(request_) / name).symlink_to(victim)
    with pytest.raises(Refusal):
        merge(request_)
    assert list(victim.iterdir()) == [] if name == "model" else victim.read_bytes() == b"precious"
    assert not request_.out.exists()


def test_a_place_that_others_may_write_into_is_not_believed(
    request_: MergeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_short(request_, monkeypatch)
    place(request_).chmod(0o777)
    with pytest.raises(Refusal, match="others may write into it"):
        merge(request_)


def test_a_place_of_another_user_is_not_believed(request_: MergeRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_short(request_, monkeypatch)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(Refusal, match=f"it belongs to user {owner}"):
        merge(request_)


def test_nobody_looks_into_a_place_and_the_model_is_as_anybody_s_directory(request_: MergeRequest) -> None:
    seen: list[int] = []
    merge(request_, progress=lambda *_: seen.append(stat.S_IMODE(place(request_).stat().st_mode)))
    assert set(seen) == {0o700}
    (request_.out.parent / "plain").mkdir()
    assert request_.out.stat().st_mode == (request_.out.parent / "plain").stat().st_mode


def test_another_adapter_under_the_name_of_the_judged_one_changes_nothing(
    request_: MergeRequest, tmp_path: Path
) -> None:
    expected = undisturbed(replace(request_, out=tmp_path / "expected"))
    other = make_adapter(seed=9).write(tmp_path / "other") / WEIGHTS

    def replace_it(*_: object) -> None:
        if other.exists():
            other.rename(tmp_path / "adapter" / WEIGHTS)

    merge(request_, progress=replace_it)
    assert files_of(request_.out) == expected


def test_an_adapter_that_is_written_over_after_it_was_judged_is_not_published_then_nor_later(
    request_: MergeRequest, tmp_path: Path
) -> None:
    expected = undisturbed(replace(request_, out=tmp_path / "expected"))
    weights = tmp_path / "adapter" / WEIGHTS
    before, other = weights.read_bytes(), (make_adapter(seed=9).write(tmp_path / "other") / WEIGHTS).read_bytes()

    def write_over(*_: object) -> None:
        weights.write_bytes(other)

    with pytest.raises(Refusal, match="changed after it was judged") as caught:
        merge(request_, progress=write_over)
    assert caught.value.code == ExitCode.INPUT_OUTPUT
    assert not request_.out.exists()
    weights.write_bytes(before)
    assert go_on(request_).resumed == 0
    assert files_of(request_.out) == expected


def test_an_adapter_that_is_replaced_while_it_is_judged_is_not_merged(
    request_: MergeRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_adapter(seed=9).write(tmp_path / "other")

    def swap_and_judge(path: Path, **how: object) -> object:
        (other / WEIGHTS).rename(path / WEIGHTS)
        return open_directory(path, **how)  # type: ignore[arg-type]

    monkeypatch.setattr("lora_merger.preparing.open_directory", swap_and_judge)
    with pytest.raises(Refusal, match="changed after it was judged"):
        merge(request_)
    assert not request_.out.exists()


def test_a_look_at_everything_can_be_stopped(request_: MergeRequest) -> None:
    stop = Stop()

    def halt(stage: str, *_: object) -> None:
        if stage == "verifying":
            stop.set(signal.SIGTERM)

    with pytest.raises(Refusal) as caught:
        merge(replace(request_, verify=True), progress=halt, stop=stop)
    assert caught.value.code == ExitCode.TERMINATED
    assert not request_.out.exists()


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.EEXIST, ExitCode.OUTPUT_EXISTS), (errno.EIO, ExitCode.INPUT_OUTPUT), (errno.ENOSPC, ExitCode.NO_SPACE)],
)
def test_a_publishing_that_fails_says_why(
    request_: MergeRequest, monkeypatch: pytest.MonkeyPatch, number: int, code: ExitCode
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        with pytest.raises(Refusal) as caught:
            merge(request_)
    assert caught.value.code == code
    go_on(request_)
