"""lora-inspect: may this engine be given this adapter? The command line, and the order of the steps.

Exit status: 0 servable, 1 not servable, 2 could not tell. A crash is a 2 as well: it is no verdict.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeVar

import click
from rich.console import Console

from lora_inspect import progress
from lora_inspect.judging import judge
from lora_inspect.junit import junit, junit_cannot_tell
from lora_inspect.question import Question, Source, parse_base_name, parse_source
from lora_inspect.report import Report, report
from lora_inspect.screen import show
from lora_operator import __version__, trust
from lora_operator.adapter import DEVICES, DTYPES, EngineLimits, quotable

SERVABLE: Final = 0
NOT_SERVABLE: Final = 1
CANNOT_TELL: Final = 2
Parsed = TypeVar("Parsed")


class _Parsed(click.ParamType[Parsed]):
    """An argument that a function of `question` reads; what it can't is bad usage."""

    def __init__(self, name: str, parse: Callable[[str], Parsed]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Parsed:
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


_SOURCE: Final = _Parsed("PATH|hf://org/name[@revision]", parse_source)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("adapter", type=_SOURCE)
@click.option("--base", type=_SOURCE, metavar="PATH|hf://...|config.json", help="The base model: its shapes.")
@click.option("--base-name", type=_Parsed("org/name", parse_base_name), metavar="org/name",
              help="Refuse an adapter whose config names another base.")  # fmt: skip
@click.option("--max-lora-rank", type=click.IntRange(min=1), metavar="N", help="The engine's --max-lora-rank.")
@click.option("--dtype", type=click.Choice(DTYPES), help="The engine's --dtype.")
@click.option("--device", type=click.Choice(DEVICES), help="What the engine runs on.")
@click.option("--engine-version", metavar="V", help="vLLM's version, such as 0.32.0.")
@click.option("--unknown-shapes", type=click.Choice(["refuse", "allow"]), default="refuse", show_default=True,
              help="Where the base's shapes can't be had.")  # fmt: skip
@click.option(
    "--header-only", is_flag=True, help="Read config and headers, not the values; of hf:// it never reads more."
)
@click.option("--format", "form", type=click.Choice(["text", "json", "junit"]), default="text", show_default=True)
@click.version_option(__version__, prog_name="lora-inspect")
def command(  # noqa: PLR0913 - a command line
    *,
    adapter: Source,
    base: Source | None,
    base_name: str | None,
    max_lora_rank: int | None,
    dtype: str | None,
    device: Literal["cpu", "cuda"] | None,
    engine_version: str | None,
    unknown_shapes: Literal["refuse", "allow"],
    header_only: bool,
    form: str,
) -> int:
    """Tell whether vLLM may be given the LoRA adapter in a directory or a Hugging Face repository.

    Exit status: 0 servable, 1 not servable, 2 could not tell.
    """
    engine = EngineLimits(max_lora_rank=max_lora_rank, dtype=dtype, device=device, version=engine_version)
    question = Question(
        adapter=adapter,
        base=base,
        base_name=base_name,
        engine=engine,
        unknown_shapes=unknown_shapes,
        header_only=header_only,
    )
    return _answer(question, form)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    try:
        # Its clients read which certificates to trust while they are imported.
        trust.extend_from_environment()
        result = command.main(arguments, prog_name="lora-inspect", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return CANNOT_TELL
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return CANNOT_TELL
    except Exception:  # noqa: BLE001 - Python's own status for a crash is 1, which here means "not servable"
        traceback.print_exc()
        return CANNOT_TELL
    return int(result or 0)


def _answer(question: Question, form: str) -> int:
    from lora_inspect import reading  # noqa: PLC0415 - after trust, and not for --help

    source = quotable(str(question.adapter))
    try:
        with progress.bar(reading.size_of(question)) as bar:
            read = reading.read(question, bar)
    except reading.CannotTellError as error:
        reason = quotable(str(error))
        if form == "junit":
            click.echo(junit_cannot_tell(source, reason), nl=False)
        click.echo(f"could not tell: {reason}", err=True)
        return CANNOT_TELL
    verdict = judge(question, read.adapter, read.base)
    _tell(report(verdict, read.adapter, source=source, bytes_read=read.bytes_read), form)
    return SERVABLE if verdict.servable else NOT_SERVABLE


def _tell(answer: Report, form: str) -> None:
    if form == "json":
        click.echo(answer.model_dump_json(by_alias=True, indent=2))
    elif form == "junit":
        click.echo(junit(answer), nl=False)
    else:
        show(answer, Console())


if __name__ == "__main__":
    sys.exit(main())
