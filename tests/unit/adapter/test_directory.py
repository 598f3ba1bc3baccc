"""A directory that a stranger filled: what is opened, hashed and compared."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_operator import adapter
from lora_operator.adapter import CONFIG, WEIGHTS, Code, EngineLimits
from support.adapters import TINY_LLAMA, AdapterFiles, make_adapter

BASE = adapter.base_from_config(TINY_LLAMA.config())
CPU = EngineLimits(max_lora_rank=16, device="cpu")
GOOD = make_adapter()


def codes(folder: Path, **options: object) -> dict[str, str]:
    """Return the errors' codes by field."""
    opened = adapter.open_directory(folder, **options)  # type: ignore[arg-type]
    return {finding.field: finding.code.value for finding in adapter.inspect(opened, BASE, CPU).errors}


def test_every_byte_is_hashed_on_the_way(tmp_path: Path) -> None:
    opened = adapter.open_directory(GOOD.write(tmp_path), expected=GOOD.sha256)
    assert {name: facts.sha256 for name, facts in opened.files.items()} == GOOD.sha256
    assert {name: facts.size for name, facts in opened.files.items()} == {k: len(v) for k, v in GOOD.files.items()}
    assert opened.digest == GOOD.digest
    assert opened.problems == ()


def test_the_header_level_hashes_nothing(tmp_path: Path) -> None:
    opened = adapter.open_directory(GOOD.write(tmp_path), level="header")
    assert opened.digest is None
    assert adapter.inspect(opened, BASE, CPU).servable


def test_a_tampered_file_is_named(tmp_path: Path) -> None:
    assert codes(GOOD.tampered().write(tmp_path), expected=GOOD.sha256) == {WEIGHTS: "DigestMismatch"}


def test_a_tampered_config_is_named(tmp_path: Path) -> None:
    changed = GOOD.with_file(CONFIG, GOOD.files[CONFIG] + b" ")
    assert codes(changed.write(tmp_path), expected=GOOD.sha256) == {CONFIG: "DigestMismatch"}


def test_a_config_that_is_not_the_pinned_one_is_named_before_any_download() -> None:
    facts = {name: adapter.FileFacts(len(data), GOOD.sha256[name]) for name, data in GOOD.files.items()}
    changed = adapter.from_parts(GOOD.files[CONFIG] + b" ", files=facts, headers={WEIGHTS: GOOD.files[WEIGHTS]})
    assert adapter.inspect(changed, BASE, CPU).reason == Code.DIGEST_MISMATCH


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_link_out_of_the_directory_is_not_followed(name: str, tmp_path: Path) -> None:
    outside = GOOD.write(tmp_path / "outside")
    folder = GOOD.with_file(name, None).write(tmp_path / "adapter")
    (folder / name).symlink_to(outside / name)
    assert codes(folder) == {name: "NotARegularFile"}


def test_a_link_to_a_neighbour_is_followed_once(tmp_path: Path) -> None:
    folder = GOOD.with_file(WEIGHTS, None).write(tmp_path)
    (folder / "real").write_bytes(GOOD.files[WEIGHTS])
    (folder / WEIGHTS).symlink_to("real")
    assert codes(folder) == {}
    (folder / "real").unlink()
    (folder / "real").symlink_to("/etc/hostname")
    assert codes(folder) == {WEIGHTS: "NotARegularFile"}


def test_a_link_to_nothing_is_refused(tmp_path: Path) -> None:
    folder = GOOD.with_file(WEIGHTS, None).write(tmp_path)
    (folder / WEIGHTS).symlink_to("nowhere")
    assert codes(folder) == {WEIGHTS: "NotARegularFile"}


@pytest.mark.parametrize("target", ["x" * 300, WEIGHTS, "a/" * 2000, "../../blobs/" + "0" * 64])
def test_a_link_that_leads_nowhere_is_refused(target: str, tmp_path: Path) -> None:
    folder = GOOD.with_file(WEIGHTS, None).write(tmp_path)
    (folder / WEIGHTS).symlink_to(target)
    assert codes(folder) == {WEIGHTS: "NotARegularFile"}


def snapshot(tmp_path: Path, files: AdapterFiles) -> Path:
    """Lay an adapter out as the Hub's cache has it."""
    repository = tmp_path / "models--acme--bot"
    folder = repository / "snapshots" / ("c" * 40)
    for place in (folder, repository / "blobs"):
        place.mkdir(parents=True)
    for name, data in files.files.items():
        (repository / "blobs" / files.sha256[name]).write_bytes(data)
        (folder / name).symlink_to(f"../../blobs/{files.sha256[name]}")
    return folder


def test_a_snapshot_in_the_hub_s_cache_is_read_through_its_links(tmp_path: Path) -> None:
    folder = snapshot(tmp_path, GOOD)
    assert adapter.open_directory(folder).digest == GOOD.digest
    assert codes(folder) == {}
    (tmp_path / "elsewhere").symlink_to(folder)
    assert codes(tmp_path / "elsewhere") == {}


def test_a_snapshot_s_links_lead_to_nothing_but_blobs(tmp_path: Path) -> None:
    folder = snapshot(tmp_path, GOOD)
    blob = folder.parents[1] / "blobs" / GOOD.sha256[WEIGHTS]
    outside = blob.rename(tmp_path / "outside")
    blob.symlink_to(outside)
    assert codes(folder) == {WEIGHTS: "NotARegularFile"}
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to("../../../outside")
    assert codes(folder) == {WEIGHTS: "NotARegularFile"}


def test_the_layout_of_the_hub_s_cache_anywhere_else_is_a_link_out_of_the_directory(tmp_path: Path) -> None:
    folder = snapshot(tmp_path, GOOD)
    assert set(codes(folder.rename(folder.with_name("main")))) == {CONFIG, WEIGHTS}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_pipe_is_not_waited_for(name: str, tmp_path: Path) -> None:
    folder = GOOD.with_file(name, None).write(tmp_path)
    os.mkfifo(folder / name)
    assert codes(folder) == {name: "NotARegularFile"}


def test_a_directory_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    folder = GOOD.with_file(WEIGHTS, None).write(tmp_path)
    (folder / WEIGHTS).mkdir()
    assert codes(folder) == {WEIGHTS: "NotARegularFile"}


def test_a_directory_that_is_not_there_is_the_callers_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        adapter.open_directory(tmp_path / "nowhere")


@given(st.integers(1, len(GOOD.files[WEIGHTS])))
def test_truncation_anywhere_is_a_finding(tmp_path_factory: pytest.TempPathFactory, count: int) -> None:
    folder = GOOD.truncated(count).write(tmp_path_factory.getbasetemp() / "truncated")
    assert codes(folder) == {WEIGHTS: "TruncatedFile"}


@given(st.binary(min_size=1, max_size=8), st.integers(0, 900))
def test_bytes_changed_in_the_header_give_a_verdict(
    tmp_path_factory: pytest.TempPathFactory, change: bytes, position: int
) -> None:
    data = bytearray(GOOD.files[WEIGHTS])
    data[position : position + len(change)] = change
    folder = GOOD.with_file(WEIGHTS, bytes(data)).write(tmp_path_factory.getbasetemp() / "changed")
    opened = adapter.open_directory(folder, expected=GOOD.sha256)
    tampered = bytes(data) != GOOD.files[WEIGHTS]
    verdict = adapter.inspect(opened, BASE, CPU)
    assert (Code.DIGEST_MISMATCH in {finding.code for finding in verdict.errors}) is tampered
