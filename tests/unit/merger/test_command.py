"""The command: what it prints, its exit codes, and the rehearsal."""

from __future__ import annotations

import errno
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lora_merger.__main__ import main
from lora_merger.files import LocalFiles
from lora_merger.progress import Progress, duration, line, size
from lora_merger.refusal import ExitCode
from support.adapters import make_adapter
from support.checkpoints import write_base

DOCUMENT = Path(__file__).parents[3] / "docs" / "merging.md"


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    write_base(tmp_path / "base", dtype="BF16", shards=2)
    make_adapter().write(tmp_path / "adapter")
    return [str(tmp_path / name) for name in ("base", "adapter", "out")]


def test_it_says_what_it_has_done(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--threads", "2", "--verify"]) == ExitCode.OK
    told = capsys.readouterr()
    assert "4 weights merged, 1.8 MB in all" in told.out
    assert "100%" in told.err


def test_a_refusal_is_one_sentence_and_its_code(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words[:2], str(Path(words[2]) / "deeper")]) == ExitCode.NOT_FOUND
    assert capsys.readouterr().err.strip() == f"lora-merge: {words[2]} is no directory"


def test_a_rehearsal_tells_and_writes_nothing(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert main([*words, "--dry-run"]) == ExitCode.OK
    told = capsys.readouterr().out
    assert re.search(r"^changes   4 weights, .*: q_proj in 2, v_proj in 2$", told, re.MULTILINE)
    assert re.search(r"^takes     about \d+ s$", told, re.MULTILINE)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("wrong", [["--threads", "0"], ["--dtype", "int8"], ["--what"]])
def test_a_wrong_word_is_argparse_s_own_exit_code(words: list[str], wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*words, *wrong])
    assert caught.value.code == ExitCode.USAGE


def test_every_exit_code_has_its_row() -> None:
    rows = {int(code) for code in re.findall(r"^\| (\d+) \|", DOCUMENT.read_text(), re.MULTILINE)}
    assert rows == {int(code) for code in ExitCode}


def test_a_bar_tells_part_amount_rate_and_time_left() -> None:
    assert line("merging", 1_100_000_000, 2_200_000_000, 2.5) == (
        "merging [############............]  50%  1.1 GB of 2.2 GB  440 MB/s  2 s left"
    )
    assert line("merging", 0, 10, 0.0) == "merging [........................]   0%  0 B of 10 B  0 B/s"


def test_without_a_terminal_there_are_lines_and_no_escapes() -> None:
    stream = io.StringIO()
    bar = Progress("merging", 100, stream=stream)
    bar.advance(40)
    bar.advance(60)
    bar.end()
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()


class Terminal(io.StringIO):
    """A terminal of 20 columns."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 7


def test_a_bar_keeps_to_one_line_of_a_narrow_terminal_and_ends_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.get_terminal_size", {7: os.terminal_size((20, 5))}.__getitem__)
    stream = Terminal()
    bar = Progress("merging", 100, stream=stream)
    bar.advance(98)  # the headers are nobody's bytes
    bar.end()
    assert stream.getvalue() == "\rmerging [##########\x1b[K\n"
    monkeypatch.setattr("os.get_terminal_size", {7: os.terminal_size((200, 5))}.__getitem__)
    bar.end()
    assert "100%  100 B of 100 B" in stream.getvalue()


@pytest.mark.parametrize(("count", "told"), [(0, "0 B"), (1500, "1.5 kB"), (12_000_000, "12 MB"), (7e12, "7.0 TB")])
def test_amounts_are_for_people(count: float, told: str) -> None:
    assert size(count) == told


@pytest.mark.parametrize(("seconds", "told"), [(3.4, "3 s"), (600, "10 min"), (7200, "2.0 h")])
def test_times_are_for_people(seconds: float, told: str) -> None:
    assert duration(seconds) == told


@pytest.mark.parametrize("rehearsal", [[], ["--dry-run"]])
def test_a_place_where_nothing_can_be_made_is_told_alike_by_merge_and_rehearsal(
    words: list[str], rehearsal: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words[:2], str(Path(words[2]) / "deeper"), *rehearsal]) == ExitCode.NOT_FOUND
    Path(words[2]).mkdir()
    assert main([*words, *rehearsal]) == ExitCode.OUTPUT_EXISTS
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("rehearsal", [[], ["--dry-run"]])
def test_a_place_below_proc_is_not_one_to_try_again(
    words: list[str], rehearsal: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words[:2], "/proc/merged", *rehearsal]) == ExitCode.OUTPUT_EXISTS
    told = capsys.readouterr().err
    assert "No such file or directory: nothing can be made there, choose another place" in told
    assert "run it again" not in told


@pytest.mark.parametrize("rehearsal", [[], ["--dry-run"]])
def test_a_place_that_this_user_may_not_write_to(
    words: list[str], rehearsal: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/models")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert main([*words, *rehearsal]) == ExitCode.OUTPUT_EXISTS
    told = capsys.readouterr().err
    assert "/models: Permission denied: let this user write there, or choose another place" in told


def test_a_file_that_this_user_may_not_read_is_named(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = f"{words[0]}/model-00002-of-00002.safetensors"

    read = LocalFiles.read

    def refuse(self: LocalFiles, name: str, start: int, stop: int) -> bytes:
        if shard.endswith(name):
            raise PermissionError(errno.EACCES, "Permission denied", shard)
        return read(self, name, start, stop)

    monkeypatch.setattr(LocalFiles, "read", refuse)
    assert main(words) == ExitCode.NOT_FOUND
    assert f"{shard}: Permission denied: let this user read it" in capsys.readouterr().err


def test_a_file_that_would_be_carried_over_is_tried_before_anything_is_written(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer, real = Path(words[0]) / "tokenizer.json", os.open

    def refuse(path: str | Path, *arguments: int, **more: int) -> int:
        if path == tokenizer:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "open", refuse)
    assert main(words) == ExitCode.NOT_FOUND
    assert f"{tokenizer}: Permission denied: let this user read it" in capsys.readouterr().err
    assert sorted(path.name for path in Path(words[2]).parent.iterdir()) == ["adapter", "base"]


@pytest.mark.parametrize("rehearsal", [[], ["--dry-run"]])
def test_a_report_that_nobody_can_read_is_no_failure_of_the_merge(words: list[str], rehearsal: list[str]) -> None:
    command = [sys.executable, "-m", "lora_merger", *words, *rehearsal]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == ExitCode.INPUT_OUTPUT
    assert "all is done, but the report can't be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert Path(words[2]).exists() == (not rehearsal)


def test_progress_that_nobody_can_see_is_no_failure_of_the_merge(words: list[str]) -> None:
    command = [sys.executable, "-m", "lora_merger", *words]
    with Path("/dev/full").open("w") as full:
        assert subprocess.run(command, stderr=full, stdout=subprocess.DEVNULL, check=False).returncode == ExitCode.OK
