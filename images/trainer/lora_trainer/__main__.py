"""lora-train: one adapter, from a frozen spec to one commit on the Hub. This module is the order of the steps.

    lora-train --spec spec.yaml                     as in a pod of a LoRATrainingJob
    lora-train --spec spec.yaml --output out --no-publish

What can be refused is refused early: the spec, then what the engine allows, then the data set, then the permission to
publish, and only then is a model fetched. Exit codes and the result are `lora_operator.protocol.training`'s.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from lora_operator import trust
from lora_operator.protocol.training import (
    DATA_PATH,
    SPEC_PATH,
    TERMINATION_MESSAGE_PATH,
    WORK_PATH,
    Reason,
    Result,
)
from lora_trainer import environment, log, spec
from lora_trainer.result import Preemption, Refusal, failed, leave
from lora_trainer.spec import Identity, TrainSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The command line."""

    spec: Path
    data: Path
    output: Path
    termination_message: Path
    publish: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one attempt and return its exit code."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, _preempted)
    environment.settle(
        os.environ,
        processors=environment.processors(),
        cpu_max=environment.cpu_limit(),
        terminal=sys.stderr.isatty(),
    )
    return leave(_attempt(options), path=options.termination_message)


def _attempt(options: Options) -> Result:
    try:
        trust.extend_from_environment()
        return train(spec.read(options.spec), spec.identity_from_env(), options)
    except Refusal as refusal:
        log.say(f"{refusal.reason}: {refusal}")
        return failed(refusal.reason, str(refusal))
    except Preemption as preemption:
        log.say(f"{Reason.PREEMPTED}: {preemption}")
        return failed(Reason.PREEMPTED, f"{preemption}; nothing was published")
    except Exception as error:  # noqa: BLE001 - the last resort: whatever it was, the operator gets a result
        traceback.print_exc()
        return failed(Reason.TRAINING_FAILED, f"{type(error).__name__}: {error}; the trainer's log has the traceback")


def train(wanted: TrainSpec, identity: Identity, options: Options) -> Result:
    """Take the steps from a spec to a Result. The imports come as late as the steps: a bad spec is told in a moment."""
    from lora_trainer import base, building, card, data, hub, publish, servable, start
    from lora_trainer import train as training

    patience = hub.patience_from_env()
    if wanted.output.hub is None:
        options = replace(options, publish=False)
    publisher = publish.Publisher.of(wanted, token=identity.output_token, job_uid=identity.job_uid, patience=patience)
    if options.publish and (earlier := publisher.earlier()):
        return earlier
    revision = base.resolve(wanted, token=identity.base_token, patience=patience)
    adapter = start.fetch(wanted, token=identity.adapter_token, patience=patience)
    servable.check_config(wanted, adapter)
    dataset = data.load(wanted, folder=options.data, token=identity.dataset_token, patience=patience)
    building.check_extra_args(wanted)
    if options.publish:
        publisher.prepare()
    model = base.fetch(wanted, revision=revision, token=identity.base_token, patience=patience)
    shapes = base.shapes(model)
    servable.check_targets(wanted, shapes)

    trained = training.run(wanted, base=model, dataset=dataset, output=options.output, start=adapter)
    # From here on the work is done: a SIGTERM must not throw it away between the commit and the result.
    signal.signal(signal.SIGTERM, _finishing)
    verdict = servable.check_adapter(wanted, trained.folder, shapes)
    text = card.render(wanted, card.lineage(trained, dataset=dataset, base_revision=revision, job_uid=identity.job_uid))
    (trained.folder / publish.CARD).write_text(text, encoding="utf-8")
    result = Result(
        reason=Reason.PUBLISHED if options.publish else Reason.TRAINED,
        message=f"{trained.steps} steps, loss {trained.metrics.get('loss', 'unknown')}",
        artifact=publish.artifact(publisher.repo, verdict),
        base_revision=revision,
        dataset_revision=dataset.revision,
        steps=trained.steps,
        metrics=trained.metrics,
    )
    log.say(f"trained: {result.message}")
    return publisher.publish(trained.folder, result) if options.publish else result


def _options(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(
        prog="lora-train", description="Train one LoRA adapter from a LoRATrainingJob's spec and publish it."
    )
    parser.add_argument("--spec", type=Path, default=Path(SPEC_PATH), help="the spec, as JSON or YAML (%(default)s)")
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
        help="where the adapter is written before it is published (%(default)s)",
    )
    parser.add_argument("--no-publish", action="store_true", help="leave the adapter in OUTPUT/adapter")
    parser.add_argument(
        "--termination-message",
        type=Path,
        default=Path(TERMINATION_MESSAGE_PATH),
        help="where the result is written too, if that file exists (%(default)s)",
    )
    read = parser.parse_args(arguments)
    return Options(
        spec=read.spec,
        data=read.data,
        output=read.output,
        termination_message=read.termination_message,
        publish=not read.no_publish,
    )


def _preempted(_signal: int, _frame: FrameType | None) -> None:
    raise Preemption("SIGTERM")


def _finishing(_signal: int, _frame: FrameType | None) -> None:
    log.say("SIGTERM: the training is done; publishing it first")


if __name__ == "__main__":
    sys.exit(main())
