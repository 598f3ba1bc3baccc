"""One attempt: the order of the steps, from a spec to a Result. Training and publishing are two, with a saved state
between them: what is trained is not trained again because the Hub was away.

The imports come as late as the steps: a bad spec is told in a moment.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_operator.api.training_run import Retention
from lora_operator.protocol.training import STATE_PATH, WORK_PATH, Reason, Result
from lora_trainer import checkpoints, gate, log, saved, spec_rules
from lora_trainer.hub import Patience
from lora_trainer.preemption import Preemptions
from lora_trainer.ranks import World
from lora_trainer.result import Refusal
from lora_trainer.spec import Identity, TrainSpec, published_to

if TYPE_CHECKING:
    from lora_operator.adapter import Base, Verdict
    from lora_trainer.base import BaseModel
    from lora_trainer.data import Data
    from lora_trainer.lineage import Lineage
    from lora_trainer.publish import Publisher
    from lora_trainer.train import Trained


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where an attempt reads and writes, and whether it publishes."""

    spec: Path
    data: Path
    output: Path
    publish: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """What the steps have in common."""

    spec: TrainSpec
    identity: Identity
    place: Place
    patience: Patience
    preemptions: Preemptions
    world: World

    @property
    def checkpoints(self) -> Path:
        """Return the folder under which each recipe has its checkpoints."""
        return self.place.output / saved.CHECKPOINTS


def run(attempt: Attempt) -> Result:
    """Take all steps that are still to be taken."""
    for where, words in spec_rules.warnings(attempt.spec):
        log.say(f"warning: {where}: {words}")
    saved.check_output(attempt.place.output)
    publisher = _publisher(attempt)
    writes = attempt.place.publish and attempt.world.first
    if attempt.place.publish and (earlier := publisher.earlier()):
        return earlier
    result = _trained(attempt, publisher)
    if result.gate is not None:
        gate.refuse(result.gate)
    return publish(attempt, publisher, result) if writes else result


def publish_only(attempt: Attempt) -> Result:
    """Publish what an attempt before has trained and saved."""
    if not attempt.place.publish:
        raise Refusal(Reason.CONFIG_INVALID, "output.hub: --publish-only needs a repository to publish to")
    result = saved.needed(attempt.place.output).result
    if result.gate is not None:
        gate.refuse(result.gate)
    publisher = _publisher(attempt)
    return publisher.earlier() or publish(attempt, publisher, result)


def publish(attempt: Attempt, publisher: Publisher, result: Result) -> Result:
    """Publish the saved adapter. Where the Hub stays away the adapter is kept, and the way on is told."""
    output, result = attempt.place.output, result.model_copy(update={"reason": Reason.PUBLISHED})
    _name_card(attempt)
    with attempt.preemptions.held("the training is done; publishing it first"):
        try:
            published = publisher.publish(output / saved.ADAPTER, result)
        except Refusal as refusal:
            if refusal.reason not in {Reason.HUB_UNAVAILABLE, Reason.HUB_UNAUTHORIZED}:
                raise
            kept = way_on(attempt)
            log.say(kept)
            raise Refusal(refusal.reason, f"{refusal}; {kept}") from refusal
        checkpoint = attempt.spec.checkpoint
        if checkpoint is None or checkpoint.retention is Retention.DELETE:
            shutil.rmtree(attempt.checkpoints, ignore_errors=True)
    return published


def _name_card(attempt: Attempt) -> None:
    from lora_trainer import card, publish

    path = attempt.place.output / saved.ADAPTER / publish.CARD
    path.write_text(card.renamed(path.read_text(encoding="utf-8"), published_to(attempt.spec).repo), encoding="utf-8")


def way_on(attempt: Attempt) -> str:
    """Return where the adapter is kept and how it is published, or that it goes with the pod, as its emptyDirs do."""
    output, checkpoint = attempt.place.output, attempt.spec.checkpoint
    claimed = checkpoint is not None and checkpoint.volume.claim_name is not None
    in_pod = attempt.identity.job_uid and any(output.is_relative_to(path) for path in (WORK_PATH, STATE_PATH))
    if in_pod and not claimed:
        return (
            f"the adapter lies in {output}, which is lost with this pod: the next attempt trains again; with "
            "checkpoint.volume.claimName it would publish"
        )
    return f"the adapter is kept in {output}, publish it with: {_resume_command(attempt.place)}"


def _resume_command(place: Place) -> str:
    """Return the command that publishes what is saved."""
    return shlex.join(["lora-train", "--spec", str(place.spec), "--output", str(place.output), "--publish-only"])


def kept_step(attempt: Attempt) -> int | None:
    """Return the step from which another attempt goes on, if this one was ended now."""
    if attempt.spec.checkpoint is None:
        return None
    record = saved.find(attempt.place.output)
    if record is not None:
        return record.result.steps
    found = [checkpoints.newest(folder) for folder in _recipes(attempt.checkpoints)]
    return max((one.seal.step for one in found if one is not None), default=None)


def _recipes(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []


def _publisher(attempt: Attempt) -> Publisher:
    from lora_trainer.publish import Publisher

    identity = attempt.identity
    return Publisher.of(attempt.spec, token=identity.output_token, job_uid=identity.job_uid, patience=attempt.patience)


def _trained(attempt: Attempt, publisher: Publisher) -> Result:
    """Return the Result of an adapter that is trained, judged and saved: now, or by an attempt before."""
    from lora_trainer import base, building, data, evaluating, lineage, servable, start
    from lora_trainer import train as training

    spec, identity, patience, world = attempt.spec, attempt.identity, attempt.patience, attempt.world
    revision = base.resolve(spec, token=identity.base_token, patience=patience)
    adapter = start.fetch(spec, token=identity.adapter_token, patience=patience)
    servable.check_config(spec, adapter)

    def load(split: str | None = None) -> Data:
        return data.load(spec, folder=attempt.place.data, token=identity.dataset_token, patience=patience, split=split)

    building.try_extra_args(spec)
    whole = load()
    dataset, held_out = evaluating.held_out(spec, whole, load)
    if attempt.place.publish and world.first:
        publisher.prepare()
    contents = saved.Contents(base=revision, dataset=whole.revision, start=start.revision(adapter))
    fingerprint = partial(saved.fingerprint, spec, contents, world_size=world.size)
    judged = fingerprint(gate=True)
    if (record := saved.find(attempt.place.output, fingerprint=judged)) is not None:
        log.say(f"trained before, {record.result.steps} steps: nothing is trained again")
        return record.result
    model, shapes = _fitting(attempt, revision, adapter, [dataset.dataset, held_out])
    where = training.Run(
        output=attempt.place.output,
        checkpoints=attempt.checkpoints / fingerprint(gate=False),
        preemptions=attempt.preemptions,
        world=world,
        held_out=held_out,
        start=adapter,
        published=lambda: evaluating.published_adapter(publisher.repo, token=identity.output_token, patience=patience),
    )
    if world.first:
        saved.forget(attempt.place.output)
    trained = training.run(spec, base=model, dataset=dataset, where=where)
    if not world.first:
        return Result(reason=Reason.TRAINED, steps=trained.steps)
    told = lineage.of(trained, dataset=dataset, base=model, job_uid=identity.job_uid, world_size=world.size)
    verdict = servable.check_adapter(spec, trained.folder, shapes)
    result = _result(spec, trained, told, verdict)
    _write_card(spec, trained, told, rank=verdict.summary.rank or spec.lora.r)
    saved.keep(attempt.place.output, saved.Record(fingerprint=judged, result=result))
    log.say(f"trained: {result.message}")
    return result


def _fitting(
    attempt: Attempt, revision: str, adapter: Path | None, rows: Sequence[Any]
) -> tuple[BaseModel, Base | None]:
    """Return the base and its shapes, having judged what goes on it before its weights are fetched."""
    from lora_trainer import base, outline, tokens

    spec, token, patience = attempt.spec, attempt.identity.base_token, attempt.patience
    bare = base.fetch(spec, revision=revision, token=token, patience=patience, weights=False)
    known = base.shapes(bare)
    _fits(spec, adapter, known)
    if said := tokens.within(spec, outline.positions_of(bare), rows, base=bare):
        log.say(f"warning: {said}")
    model = base.fetch(spec, revision=revision, token=token, patience=patience)
    shapes = base.shapes(model)
    if known is None:  # config.json did not tell, the weights' headers do
        _fits(spec, adapter, shapes)
    return model, shapes


def _fits(spec: TrainSpec, adapter: Path | None, shapes: Base | None) -> None:
    from lora_trainer import servable

    servable.check_modules(spec, shapes)
    servable.check_start(spec, adapter, shapes)


def _write_card(spec: TrainSpec, trained: Trained, told: Lineage, *, rank: int) -> None:
    from lora_trainer import card, curve, publish

    (trained.folder / publish.CARD).write_text(card.render(spec, told, rank=rank), encoding="utf-8")
    (trained.folder / publish.CURVE).write_text(curve.svg(trained.history), encoding="utf-8")


def _result(spec: TrainSpec, trained: Trained, told: Lineage, verdict: Verdict) -> Result:
    from lora_trainer import publish

    return Result(
        reason=Reason.TRAINED,
        message=f"{trained.steps} steps, loss {trained.metrics.get('loss', 'unknown')}",
        artifact=publish.artifact(published_to(spec).repo, verdict),
        base_revision=told.base_revision,
        dataset_revision=told.dataset_revision,
        steps=trained.steps,
        metrics=trained.metrics,
        resumed_from_step=trained.resumed_from_step or None,
        world_size=told.world_size if told.world_size > 1 else None,
        gate=trained.gate,
    )
