"""What the Hub knows of a training whose pod is gone: a commit's message carries the job's uid."""

from __future__ import annotations

from typing import Final

from lora_operator.lora_training_job.observed import Observed
from lora_operator.lora_training_job.plan import Stage, Standing, published
from lora_operator.lora_training_job.preflight import output_place, output_token
from lora_operator.protocol.training import COMMIT_TRAILER, RESULT_FILE, read_result
from lora_operator.world import World

RESULT_LIMIT: Final = 64 << 10


async def published_before(observed: Observed, world: World) -> Standing | None:
    """Return how the training stands if this very job has published; Waiting or Blocked where the Hub can't tell."""
    place = output_place(observed.job.spec)
    token = await output_token(observed, world)
    commit = await world.hub.find_commit(place, f"{COMMIT_TRAILER}: {observed.job.metadata.uid}", token=token)
    if commit is None:
        return None
    pinned = output_place(observed.job.spec, revision=commit)
    text = await world.hub.read(pinned, RESULT_FILE, token=token, limit=RESULT_LIMIT)
    result = read_result(text.decode(errors="replace"))
    if result is None or result.artifact is None:
        return None
    whole = result.model_copy(update={"artifact": result.artifact.model_copy(update={"commit": commit})})
    artifact = published(whole, place.repo)
    if artifact is None:
        return None
    return Standing(stage=Stage.PUBLISHED, reason="Published", message=whole.message, artifact=artifact, result=whole)
