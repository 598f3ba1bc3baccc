"""lora-merge, killed at chosen calls or met by a full disk: never half a model, and the next run ends alike."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lora_merger.refusal import ExitCode
from support.adapters import BaseShape, make_adapter
from support.checkpoints import files_of, write_base

# Large enough for several blocks and tasks in each of three shards: some 60 MB.
BASE = BaseShape(hidden=1024, inner=2048, vocabulary=4096, layers=2, heads=8, kv_heads=4, head_dim=128)
TARGETS = ("q_proj", "v_proj", "down_proj", "gate_proj")
LONGEST = 120


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with base, adapter and what an undisturbed merge makes of them."""
    folder = tmp_path_factory.mktemp("merge")
    write_base(folder / "base", base=BASE, dtype="BF16", shards=3)
    make_adapter(base=BASE, targets=TARGETS).write(folder / "adapter")
    assert run(folder, folder / "undisturbed").returncode == ExitCode.OK
    return folder


def run(inputs: Path, out: Path, *before: str) -> subprocess.CompletedProcess[str]:
    """Merge into *out*."""
    command = [sys.executable, "-m", *(before or ("lora_merger",)), *words(inputs, out)]
    return subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False)


@contextmanager
def stopped_in_the_middle(inputs: Path, out: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a merge, and hand it over when it has begun to write and stands still."""
    command = [sys.executable, "-m", "support.dying", "stop", "pwrite", "3", *words(inputs, out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as merging:
        _, status = os.waitpid(merging.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        yield merging


def words(inputs: Path, out: Path) -> list[str]:
    """Return the command's arguments."""
    return [str(inputs / "base"), str(inputs / "adapter"), str(out), "--threads", "2"]


def assert_it_goes_on(inputs: Path, out: Path) -> None:
    """Run it again: all of it as if nothing had been, and nothing left over."""
    assert not out.exists()
    again = run(inputs, out)
    assert again.returncode == ExitCode.OK, again.stderr
    assert files_of(out) == files_of(inputs / "undisturbed")
    assert list(out.parent.iterdir()) == [out]


MOMENTS = [
    *(("copy_file_range", nth) for nth in (1, 4)),
    *(("pwrite", nth) for nth in (1, 7, 20, 33)),
    *(("fsync", nth) for nth in (1, 2, 3, 5, 8, 11, 14)),
    *(("replace", nth) for nth in (1,)),
    *(("rename", nth) for nth in (1,)),
]


@pytest.mark.parametrize(("call", "nth"), MOMENTS, ids=str)
def test_a_merge_that_is_killed_is_gone_on_with(call: str, nth: int, inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    killed = run(inputs, out, "support.dying", "kill", call, str(nth))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert_it_goes_on(inputs, out)


def test_a_merge_that_is_killed_again_and_again_gets_done(inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for nth in (4, 6, 8):
        assert run(inputs, out, "support.dying", "kill", "fsync", str(nth)).returncode == -signal.SIGKILL
    assert_it_goes_on(inputs, out)


def test_a_merge_that_is_killed_once_it_has_published_is_done(inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    # The first is that of a place without a journal.
    killed = run(inputs, out, "support.dying", "kill", "rmdir", "2")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert files_of(out) == files_of(inputs / "undisturbed")
    assert run(inputs, out).returncode == ExitCode.OUTPUT_EXISTS


@pytest.mark.parametrize(
    ("how", "call", "code", "words_"),
    [
        ("ENOSPC", "pwrite", ExitCode.NO_SPACE, "the disk is full"),
        ("ENOSPC", "copy_file_range", ExitCode.NO_SPACE, "the disk is full"),
        ("EDQUOT", "pwrite", ExitCode.NO_SPACE, "the disk quota is used up"),
        ("EIO", "preadv", ExitCode.INPUT_OUTPUT, "Input/output error"),
        ("EIO", "fsync", ExitCode.INPUT_OUTPUT, "Input/output error"),
    ],
)
def test_a_call_that_fails_is_told_and_gone_on_with(
    how: str, call: str, code: ExitCode, words_: str, inputs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    failed = run(inputs, out, "support.dying", how, call, "3")
    assert failed.returncode == code, failed.stderr
    assert words_ in failed.stderr
    assert "Traceback" not in failed.stderr
    assert_it_goes_on(inputs, out)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system in memory that holds the model, but not with something else beside it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_fills_up_meanwhile_ends_cleanly(inputs: Path, small_disk: Path) -> None:
    out = small_disk / "out"
    with stopped_in_the_middle(inputs, out) as merging:
        # Once it has looked at the free space, somebody else takes it.
        with (small_disk / "other").open("wb", buffering=0) as other:
            try:
                while True:
                    other.write(bytes(1024 * 1024))
            except OSError:
                pass
        merging.send_signal(signal.SIGCONT)
        _, told = merging.communicate(timeout=LONGEST)
    assert merging.returncode == ExitCode.NO_SPACE, told
    assert "the disk is full" in told
    (small_disk / "other").unlink()
    assert_it_goes_on(inputs, out)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, ExitCode.TERMINATED), (signal.SIGINT, ExitCode.INTERRUPTED)]
)
def test_a_signal_ends_it_at_once_and_it_goes_on_later(
    number: signal.Signals, code: ExitCode, inputs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with stopped_in_the_middle(inputs, out) as merging:
        merging.send_signal(number)
        merging.send_signal(signal.SIGCONT)
        _, told = merging.communicate(timeout=LONGEST)
    assert merging.returncode == code, told
    assert "run it again to go on" in told
    assert_it_goes_on(inputs, out)
