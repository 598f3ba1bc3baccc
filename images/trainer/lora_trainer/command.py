"""lora-train: one adapter, from a frozen spec to one commit on the Hub. This module is the command line and the ends.

    lora-train spec.yaml                            as in a pod of a LoRATrainingJob
    lora-train spec.yaml --check                    all that needs no GPU; nothing is trained
    lora-train spec.yaml --output out --no-publish
    lora-train spec.yaml --output out --publish-only

What can be refused is refused early: the spec, then what the engine allows, then the data set, then the permission to
publish, and only then is a model fetched. Exit codes and the result are `lora_operator.protocol.training`'s.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from lora_operator import trust
from lora_operator.protocol.training import (
    DATA_PATH,
    SPEC_PATH,
    TERMINATION_MESSAGE_PATH,
    WORK_PATH,
    Reason,
    Result,
)
from lora_trainer import environment, launch, log, looking, ranks, spec
from lora_trainer.looking import Look
from lora_trainer.preemption import Preemption, Preemptions
from lora_trainer.result import Refusal, exit_code, failed, leave


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The command line."""

    spec: Path
    data: Path
    output: Path
    termination_message: Path
    publish: bool
    publish_only: bool
    look: Look | None


def main(arguments: Sequence[str], preemptions: Preemptions) -> int:
    """Run one attempt, or look, and return the exit code."""
    options = _options(arguments)
    environment.settle(
        os.environ,
        processors=environment.processors(),
        cpu_max=environment.cpu_limit(),
        terminal=sys.stderr.isatty(),
    )
    environment.tell_warnings()
    world = ranks.World()
    found: Result | None = None
    try:
        if options.look is None:
            found, world = _attempt(options, preemptions, arguments)
        else:
            preemptions.check()
            found = looking.run(
                options.look,
                path=options.spec,
                folder=options.data,
                output=options.output if options.output != Path(WORK_PATH) else None,
                settle=trust.extend_from_environment,
            )
            if found is not None and found.reason is Reason.TRAINING_FAILED:
                preemptions.check()
    except Preemption as preemption:
        found = _preempted(preemption, None)
    preemptions.ignore()  # all that is left is to say so
    if found is None:
        return 0
    if world.first:
        return leave(found, path=options.termination_message)
    return exit_code(found)  # the first process speaks for all


def _attempt(options: Options, preemptions: Preemptions, arguments: Sequence[str]) -> tuple[Result, ranks.World]:
    world, kept = ranks.World(), None
    try:
        preemptions.check()
        trust.extend_from_environment()
        wanted = spec.read(options.spec)
        world = ranks.world(wanted.parallelism, os.environ)
        if world.launch and not options.publish_only:
            return launch.run(world.launch, arguments, checkpoint=wanted.checkpoint), world
        with _as_preemption(preemptions):
            from lora_trainer import attempt, hub

        patience = replace(hub.patience_from_env(), sleep=preemptions.sleep)
        publish = options.publish and wanted.output.hub is not None
        place = attempt.Place(spec=options.spec, data=options.data, output=options.output, publish=publish)
        one = attempt.Attempt(
            spec=wanted,
            identity=spec.identity_from_env(),
            place=place,
            patience=patience,
            preemptions=preemptions,
            world=world,
        )
        try:
            with _as_preemption(preemptions):
                return attempt.publish_only(one) if options.publish_only else attempt.run(one), world
        except Preemption:
            kept = attempt.kept_step(one)
            raise
    except Refusal as refusal:
        log.say(f"{refusal.reason}: {refusal}")
        return failed(refusal.reason, str(refusal)), world
    except Preemption as preemption:
        return _preempted(preemption, kept), world
    except Exception as error:  # noqa: BLE001 - the last resort: whatever it was, the operator gets a result
        traceback.print_exc()
        message = f"{type(error).__name__}: {error}; the trainer's log has the traceback"
        return failed(Reason.TRAINING_FAILED, message), world


@contextmanager
def _as_preemption(preemptions: Preemptions) -> Iterator[None]:
    """Tell a signal as such where a library makes an error of its own of it, as imports do."""
    try:
        yield
    except Refusal:
        raise
    except Exception as error:
        if preemptions.requested:
            log.say(f"{type(error).__name__}: {error}")
        preemptions.check()
        raise


def _preempted(preemption: Preemption, kept: int | None) -> Result:
    tail = "nothing was published" if kept is None else f"step {kept} is kept, and nothing was published"
    log.say(f"{Reason.PREEMPTED}: {preemption}; {tail}")
    return failed(Reason.PREEMPTED, f"{preemption}; {tail}", checkpoint_step=kept)


def _options(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(
        prog="lora-train", description="Train one LoRA adapter from a LoRATrainingJob's spec and publish it."
    )
    parser.add_argument("spec", type=Path, nargs="?", metavar="SPEC", help=f"the spec, as JSON or YAML ({SPEC_PATH})")
    parser.add_argument("--spec", type=Path, dest="spec_option", metavar="SPEC", help="the same")
    looks = parser.add_mutually_exclusive_group()
    for look, words in looking.WORDS.items():
        looks.add_argument(f"--{look}", dest="look", action="store_const", const=look, help=words)
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(DATA_PATH),
        help="the folder that holds the file which dataset.source.configMapRef.key names (%(default)s)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(WORK_PATH),
        help="where checkpoints lie, and the adapter before it is published (%(default)s)",
    )
    publishing = parser.add_mutually_exclusive_group()
    publishing.add_argument("--no-publish", action="store_true", help="leave the adapter in OUTPUT/adapter")
    publishing.add_argument(
        "--publish-only", action="store_true", help="publish the adapter that is in OUTPUT/adapter, and train nothing"
    )
    parser.add_argument(
        "--termination-message",
        type=Path,
        default=Path(TERMINATION_MESSAGE_PATH),
        help="where the result is written too, if that file exists (%(default)s)",
    )
    read = parser.parse_args(arguments)
    return Options(
        spec=read.spec or read.spec_option or Path(SPEC_PATH),
        data=read.data,
        output=read.output,
        termination_message=read.termination_message,
        publish=not read.no_publish,
        publish_only=read.publish_only,
        look=read.look,
    )
