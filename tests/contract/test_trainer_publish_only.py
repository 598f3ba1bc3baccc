"""Publishing from what is saved, with the real Hub client and the Hub server: nothing is lost, nothing is trained."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from hubserver import Hub
from lora_operator.adapter import open_directory
from lora_operator.protocol.training import Artifact, GateVerdict, Reason, Result
from lora_trainer import attempt, checkpoints, publish, saved, spec
from lora_trainer.attempt import Attempt, Place
from lora_trainer.checkpoints import Seal
from lora_trainer.hub import Patience
from lora_trainer.preemption import Preemption, Preemptions
from lora_trainer.ranks import World
from lora_trainer.result import Refusal
from lora_trainer.spec import Identity
from support import adapters, samples

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "acme/adapter"
COMMIT = r"POST /api/models/acme/adapter/commit/"


@pytest.fixture
def endpoint(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The Hub, as the trainer finds it: the client has read HF_ENDPOINT when it was imported."""
    monkeypatch.setattr(publish, "HfApi", partial(HfApi, endpoint=hub.url))
    HfApi(endpoint=hub.url, token="hf_write").create_repo(REPO)
    return hub


def make(folder: Path, *, gate: GateVerdict | None = None, **fields: Any) -> Attempt:
    """Return an attempt whose output folder holds a trained adapter, and a checkpoint of it."""
    fields = {"output": {"hub": {"repo": REPO}}, "checkpoint": {}} | fields
    wanted = samples.varied(samples.training_job(), {f"spec.{name}": value for name, value in fields.items()})["spec"]
    adapter = folder / saved.ADAPTER
    adapter.mkdir()
    adapters.make_adapter().write(adapter)
    (adapter / "README.md").write_text(f"---\nbase_model: acme/tiny\n---\n\n# {REPO}\n")
    (adapter / "loss.svg").write_text("<svg/>")
    digest = open_directory(adapter).digest
    assert digest is not None
    artifact = Artifact(repo=REPO, commit="", digest=digest, size_bytes=1)
    result = Result(reason=Reason.TRAINED, steps=20, artifact=artifact, gate=gate)
    saved.keep(folder, saved.Record(fingerprint="0" * 16, result=result))
    step = folder / saved.CHECKPOINTS / ("0" * 16) / "checkpoint-20"
    step.mkdir(parents=True)
    checkpoints.seal(step, Seal(step=20, max_steps=20))
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    return Attempt(
        spec=spec.parse(json.dumps(wanted)),
        identity=Identity(job_uid="uid-1", output_token="hf_write"),
        place=Place(spec=folder / "spec file.yaml", data=folder, output=folder, publish=True),
        patience=Patience(seconds=5, clock=lambda: clock[0], sleep=sleep),
        preemptions=Preemptions(),
        world=World(),
    )


def test_what_is_saved_is_published_and_its_checkpoints_go(endpoint: Hub, api: HfApi, tmp_path: Path) -> None:
    one = make(tmp_path)
    published = attempt.publish_only(one)
    assert published.reason is Reason.PUBLISHED
    assert published.artifact is not None
    assert api.list_repo_commits(REPO)[0].commit_id == published.artifact.commit
    assert not one.checkpoints.exists()
    assert attempt.publish_only(one) == published


def test_a_repository_that_was_named_since_is_made_and_told(endpoint: Hub, api: HfApi, tmp_path: Path) -> None:
    named = "acme/named-since"
    published = attempt.publish_only(make(tmp_path, output={"hub": {"repo": named}}))
    assert published.artifact is not None
    assert published.artifact.repo == named
    card = Path(api.hf_hub_download(named, "README.md", local_dir=tmp_path / "published"))
    assert f"# {named}" in card.read_text().splitlines()
    assert api.list_repo_commits(named)[0].commit_id == published.artifact.commit


def test_checkpoints_stay_where_they_are_to_be_retained(endpoint: Hub, tmp_path: Path) -> None:
    one = make(tmp_path, checkpoint={"retention": "Retain"})
    attempt.publish_only(one)
    assert one.checkpoints.exists()


@pytest.mark.parametrize(("status", "reason"), [(503, Reason.HUB_UNAVAILABLE), (403, Reason.HUB_UNAUTHORIZED)])
def test_where_the_hub_does_not_take_it_all_is_kept_and_the_way_on_is_told(
    endpoint: Hub, tmp_path: Path, status: int, reason: Reason
) -> None:
    one = make(tmp_path)
    endpoint.fault(COMMIT, status=status, times=-1)
    with pytest.raises(Refusal) as refused:
        attempt.publish_only(one)
    assert refused.value.reason is reason
    command = f"lora-train --spec '{tmp_path}/spec file.yaml' --output {tmp_path} --publish-only"
    assert str(refused.value).endswith(f"publish it with: {command}")
    endpoint.clear_faults()
    assert attempt.publish_only(one).reason is Reason.PUBLISHED


@pytest.mark.parametrize(
    ("output", "checkpoint", "words"),
    [
        ("/work", None, "which is lost with this pod: the next attempt trains again; with checkpoint.volume.claimName"),
        ("/state/uid-1", {}, "which is lost with this pod"),
        ("/state/uid-1", {"volume": {"claimName": "kept"}}, "publish it with: lora-train"),
        ("/home/me/out", None, "publish it with: lora-train"),
    ],
)
def test_what_lies_in_a_volume_of_the_pod_is_not_said_to_be_kept(
    output: str, checkpoint: dict[str, Any] | None, words: str, tmp_path: Path
) -> None:
    one = make(tmp_path, checkpoint=checkpoint)
    told = attempt.way_on(replace(one, place=replace(one.place, output=Path(output))))
    assert output in told
    assert words in told


def test_what_did_not_pass_its_gate_is_not_published_by_any_way(endpoint: Hub, api: HfApi, tmp_path: Path) -> None:
    verdict = GateVerdict(passed=False, metric="eval_loss", value="3", limit="2", against="a threshold")
    before = api.list_repo_commits(REPO)
    with pytest.raises(Refusal) as refused:
        attempt.publish_only(make(tmp_path, gate=verdict))
    assert refused.value.reason is Reason.GATE_FAILED
    assert api.list_repo_commits(REPO) == before


def test_a_spec_without_a_repository_can_not_be_published(tmp_path: Path) -> None:
    one = make(tmp_path)
    with pytest.raises(Refusal, match="--publish-only needs a repository"):
        attempt.publish_only(replace(one, place=replace(one.place, publish=False)))


def test_sigterm_while_the_hub_is_waited_for_ends_the_attempt_and_keeps_all(endpoint: Hub, tmp_path: Path) -> None:
    one = make(tmp_path)
    one = replace(one, patience=replace(one.patience, sleep=one.preemptions.sleep))
    one.preemptions.requested = True
    endpoint.fault(COMMIT, status=503)
    with pytest.raises(Preemption):
        attempt.publish_only(one)
    assert attempt.kept_step(one) == 20
    assert one.checkpoints.exists()


def test_the_step_that_is_kept_is_that_of_the_newest_checkpoint(tmp_path: Path) -> None:
    one = make(tmp_path)
    saved.forget(tmp_path)
    assert attempt.kept_step(one) == 20
    (one.checkpoints / ("0" * 16) / "checkpoint-20" / checkpoints.SEAL).unlink()
    assert attempt.kept_step(one) is None


def test_without_checkpoints_nothing_is_said_to_be_kept(tmp_path: Path) -> None:
    one = make(tmp_path)
    assert attempt.kept_step(one) == 20
    assert attempt.kept_step(replace(one, spec=one.spec.model_copy(update={"checkpoint": None}))) is None
