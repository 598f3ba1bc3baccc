"""The command: `lora-merge BASE ADAPTER OUT`. Exit codes are `refusal.ExitCode`'s; docs/merging.md lists them."""

from __future__ import annotations

import os

# Before numpy is there: the threads are ours, and each of the BLAS's own would take memory for nothing.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_merger import foretelling
from lora_merger.merging import Merged, Stage, merge
from lora_merger.preparing import DTYPES, MergeRequest, prepare
from lora_merger.progress import Progress, size
from lora_merger.refusal import ExitCode, Refusal
from lora_merger.stopping import Stop, on_signals
from lora_operator.clients.hub_reference import is_reference


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The command line."""

    request: MergeRequest
    dry_run: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Merge, or say what a merge would do; return the exit code."""
    options = _options(arguments)
    stop = Stop()
    try:
        if any(map(is_reference, (options.request.base, options.request.adapter))):
            from lora_operator import trust  # noqa: PLC0415 - with it comes TLS, which a merge of files does not need

            trust.extend_from_environment()
        with on_signals(stop):
            if options.dry_run:
                with prepare(options.request, stop) as prepared:
                    told = foretelling.report(prepared)
            else:
                bars = _Bars(everything=options.request.verify)
                merged = merge(options.request, progress=bars.advance, stop=stop)
                bars.end()
                told = _told(merged)
        _say(told)
    except Refusal as refusal:
        below_the_bar = "\n" if sys.stderr.isatty() else ""
        sys.stderr.write(f"{below_the_bar}lora-merge: {refusal}\n")
        return refusal.code
    except Exception:  # noqa: BLE001 - the last resort: an exit code that is documented
        traceback.print_exc()
        return ExitCode.FAILED
    return ExitCode.OK


def _say(text: str) -> None:
    """Print what was done; where nobody can hear it (a full disk, a closed pipe), that is said and nothing undone."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer would fail once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Refusal(
            ExitCode.INPUT_OUTPUT, f"all is done, but the report can't be written to stdout: {error.strerror}"
        ) from error


class _Bars:
    """One bar after the other, a stage each."""

    def __init__(self, *, everything: bool) -> None:
        self._everything = everything
        self._stage: Stage | None = None
        self._bar: Progress | None = None

    def advance(self, stage: Stage, count: int, total: int) -> None:
        """Hear of bytes."""
        # Where only rows are sampled, a bar of all bytes would never get far.
        if stage == "verifying" and not self._everything:
            return
        if self._bar is None or stage != self._stage:
            self.end()
            self._stage, self._bar = stage, Progress(stage, total)
        self._bar.advance(count)

    def end(self) -> None:
        """Let the last bar say how it ended."""
        if self._bar is not None:
            self._bar.end()
            self._bar = None


def _told(merged: Merged) -> str:
    resumed = f", {merged.resumed} files of them made by an earlier run" if merged.resumed else ""
    lines = [
        *(f"note: {warning}" for warning in merged.warnings),
        f"{merged.out}: {len(merged.plan.merges)} weights merged, {size(merged.plan.bytes_written)} in all{resumed}",
        f"checked: {merged.checked.values:,} values of {merged.checked.tensors} weights, computed again: all right",
    ]
    return "\n".join(lines) + "\n"


def _options(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(
        prog="lora-merge",
        description="Fold a LoRA adapter into its base: a model of its own, equal to PEFT's merge_and_unload.",
        epilog="An interrupted merge goes on where it was when the same command is run again.",
    )
    parser.add_argument("base", metavar="BASE", help="a directory, or hf://<id>[@<revision>]")
    parser.add_argument("adapter", metavar="ADAPTER", help="a directory, or hf://<id>[@<revision>]")
    parser.add_argument("out", metavar="OUT", type=Path, help="the directory to make; it appears when it is whole")
    parser.add_argument("--dtype", choices=list(DTYPES), help="of every weight (default: each one's own)")
    parser.add_argument("--threads", type=_positive, help="default: a core each, at most 4")
    parser.add_argument("--dry-run", action="store_true", help="say what would change, and how long it would take")
    parser.add_argument("--verify", action="store_true", help="compute everything again, not a sample of rows")
    read = parser.parse_args(arguments)
    request = MergeRequest(
        base=read.base,
        adapter=read.adapter,
        out=read.out,
        dtype=read.dtype,
        threads=read.threads,
        verify=read.verify,
    )
    return Options(request=request, dry_run=read.dry_run)


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if not 0 < number <= 256:
        raise argparse.ArgumentTypeError(f"{text}: a number of threads from 1 to 256")
    return number


if __name__ == "__main__":
    sys.exit(main())
