"""The trainer's publishing, with the real Hub client and the Hub server: one commit or none, whatever the Hub does."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from huggingface_hub import HfApi

from hubserver import Hub
from lora_operator.protocol.training import COMMIT_TRAILER, Artifact, Reason, Result
from lora_trainer.hub import Patience
from lora_trainer.publish import Publisher
from lora_trainer.result import Refusal

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "acme/adapter"
WRITER = "hf_write"
RESULT = Result(
    reason=Reason.PUBLISHED,
    message="20 steps",
    steps=20,
    artifact=Artifact(repo=REPO, commit="", digest=f"sha256:{'0' * 64}", size_bytes=7),
)


def publisher(hub: Hub, *, token: str = WRITER, job_uid: str = "uid-1", tag: str | None = None) -> Publisher:
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    return Publisher(
        repo=REPO,
        private=True,
        job_uid=job_uid,
        tag=tag,
        api=HfApi(endpoint=hub.url, token=token),
        patience=Patience(seconds=60, clock=lambda: clock[0], sleep=sleep),
    )


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    (tmp_path / "README.md").write_text("---\nbase_model: acme/tiny\n---\n")
    (tmp_path / "loss.svg").write_text("<svg/>")
    return tmp_path


def commits(api: HfApi) -> list[str]:
    return [commit.commit_id for commit in api.list_repo_commits(REPO)]


def test_the_adapter_is_one_commit_that_carries_the_jobs_uid(hub: Hub, api: HfApi, adapter: Path) -> None:
    mine = publisher(hub)
    mine.prepare()
    before = commits(api)
    published = mine.publish(adapter, RESULT)
    assert published.artifact is not None
    [newest] = [commit for commit in api.list_repo_commits(REPO) if commit.commit_id not in before]
    assert newest.commit_id == published.artifact.commit
    assert newest.message.splitlines()[-1] == f"{COMMIT_TRAILER}: uid-1"
    names = {"adapter_config.json", "adapter_model.safetensors", "README.md", "loss.svg", "training_result.json"}
    assert names <= set(api.list_repo_files(REPO, revision=newest.commit_id))
    assert api.model_info(REPO).private


def test_a_second_attempt_finds_what_the_first_published(hub: Hub, api: HfApi, adapter: Path) -> None:
    first = publisher(hub)
    assert first.earlier() is None
    first.prepare()
    published = first.publish(adapter, RESULT)
    after = commits(api)
    assert publisher(hub).earlier() == published
    assert publisher(hub).publish(adapter, RESULT) == published
    assert publisher(hub, job_uid="uid-2").earlier() is None
    assert commits(api) == after


def test_a_commit_that_was_made_but_not_answered_is_not_made_again(hub: Hub, api: HfApi, adapter: Path) -> None:
    mine = publisher(hub)
    mine.prepare()
    before = commits(api)
    hub.fault(r"POST /api/models/acme/adapter/commit/", cut_after_bytes=0)
    published = mine.publish(adapter, RESULT)
    assert published.artifact is not None
    assert commits(api) == [published.artifact.commit, *before]


def test_a_503_of_the_commit_is_waited_out(hub: Hub, api: HfApi, adapter: Path) -> None:
    mine = publisher(hub)
    mine.prepare()
    before = commits(api)
    hub.fault(r"POST /api/models/acme/adapter/commit/", status=503, times=3)
    mine.publish(adapter, RESULT)
    assert len(commits(api)) == len(before) + 1


def test_a_hub_that_stays_away_ends_in_hub_unavailable(hub: Hub, adapter: Path) -> None:
    mine = publisher(hub)
    mine.prepare()
    hub.fault(r"POST /api/models/acme/adapter/commit/", status=503, times=-1)
    with pytest.raises(Refusal) as refused:
        mine.publish(adapter, RESULT)
    assert refused.value.reason is Reason.HUB_UNAVAILABLE


@pytest.mark.parametrize("token", ["hf_read", "hf_other", "hf_nobodys"])
@pytest.mark.parametrize("exists", [True, False])
def test_a_token_that_may_not_write_is_told_before_training(hub: Hub, api: HfApi, token: str, exists: bool) -> None:
    if exists:
        api.create_repo(REPO)
    with pytest.raises(Refusal) as refused:
        publisher(hub, token=token).prepare()
    assert refused.value.reason is Reason.HUB_UNAUTHORIZED
    assert str(refused.value).startswith(
        "output.hub.repo: the token in output.hub.tokenSecretRef may not write to acme"
    )
    assert token not in str(refused.value)


def test_weights_that_another_adapter_left_go_with_the_same_commit(hub: Hub, api: HfApi, adapter: Path) -> None:
    stale = ["adapter_model.bin", "adapter_model-00001-of-00002.safetensors", "adapter_model.safetensors.index.json"]
    hub.add_model(REPO, dict.fromkeys([*stale, "notes.md"], b"old"))
    before = commits(api)
    publisher(hub).publish(adapter, RESULT)
    files = api.list_repo_files(REPO)
    assert not set(stale) & set(files)
    assert "notes.md" in files
    assert len(commits(api)) == len(before) + 1


def tags(api: HfApi) -> dict[str, str]:
    return {tag.name: tag.target_commit for tag in api.list_repo_refs(REPO).tags}


def test_the_commit_is_tagged_by_the_adapter_s_digest_or_as_asked_for(hub: Hub, api: HfApi, adapter: Path) -> None:
    mine = publisher(hub)
    mine.prepare()
    published = mine.publish(adapter, RESULT)
    assert published.artifact is not None
    assert published.artifact.tag == f"lora-{'0' * 12}"
    assert tags(api) == {f"lora-{'0' * 12}": published.artifact.commit}
    named = publisher(hub, job_uid="uid-2", tag="v2").publish(adapter, RESULT)
    assert named.artifact is not None
    assert tags(api)["v2"] == named.artifact.commit


def test_a_tag_that_is_missing_is_made_again(hub: Hub, api: HfApi, adapter: Path) -> None:
    mine = publisher(hub)
    mine.prepare()
    mine.publish(adapter, RESULT)
    before = tags(api)
    [name] = before
    api.delete_tag(REPO, tag=name)
    assert publisher(hub).earlier() is not None
    assert tags(api) == before


def test_a_tag_is_never_moved(hub: Hub, api: HfApi, adapter: Path) -> None:
    first = publisher(hub, tag="v1")
    first.prepare()
    first.publish(adapter, RESULT)
    before = tags(api)
    with pytest.raises(Refusal) as refused:
        publisher(hub, job_uid="uid-2", tag="v1").prepare()
    assert refused.value.reason is Reason.CONFIG_INVALID
    assert str(refused.value).startswith("output.hub.tag: acme/adapter has a tag v1 already")
    (adapter / "adapter_model.safetensors").write_bytes(b"others")
    publisher(hub, job_uid="uid-2", tag="v1").publish(adapter, RESULT)  # somebody was faster
    assert tags(api) == before


class Trouble(NamedTuple):
    """Which request fails how, and how publishing ends: None where it gets through."""

    match: str
    fault: dict[str, Any]
    reason: Reason | None


COMMIT = r"POST /api/models/acme/adapter/commit/"
FAULTS = [
    pytest.param(Trouble(COMMIT, {"status": 503, "times": 3}, None), id="503 for a while"),
    pytest.param(Trouble(COMMIT, {"status": 503, "times": -1}, Reason.HUB_UNAVAILABLE), id="503 for good"),
    pytest.param(Trouble(COMMIT, {"status": 401, "times": -1}, Reason.HUB_UNAUTHORIZED), id="401"),
    pytest.param(Trouble(COMMIT, {"status": 403, "times": -1}, Reason.HUB_UNAUTHORIZED), id="403"),
    pytest.param(Trouble(COMMIT, {"status": 429, "headers": {"Retry-After": "20"}}, None), id="429, and told when"),
    pytest.param(Trouble(COMMIT, {"status": 412}, None), id="a commit that met another"),
    pytest.param(Trouble(COMMIT, {"cut_after_bytes": 0}, None), id="the connection cut after the commit"),
    pytest.param(Trouble(r"PUT ", {"cut_after_bytes": 0}, None), id="the connection cut in the upload"),
    pytest.param(
        Trouble(r"POST /api/models/acme/adapter/tag/", {"status": 503, "times": 2}, None), id="503 for the tag"
    ),
]


@pytest.mark.parametrize("trouble", FAULTS)
def test_a_hub_in_trouble_has_its_documented_outcome(
    trouble: Trouble, hub: Hub, api: HfApi, adapter: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    mine = publisher(hub)
    mine.prepare()
    before = commits(api)
    hub.fault(trouble.match, **trouble.fault)
    if trouble.reason is None:
        published = mine.publish(adapter, RESULT)
        assert published.artifact is not None
        assert commits(api) == [published.artifact.commit, *before]
        assert list(tags(api).values()) == [published.artifact.commit]
    else:
        with pytest.raises(Refusal) as refused:
            mine.publish(adapter, RESULT)
        assert refused.value.reason is trouble.reason
        assert WRITER not in str(refused.value)
        assert commits(api) == before
    assert any(request.faulted for request in hub.requests)
    said = capfd.readouterr()
    assert WRITER not in said.out + said.err


def test_a_hub_that_says_when_to_come_again_is_not_asked_before(hub: Hub, api: HfApi, adapter: Path) -> None:
    mine = publisher(hub)
    mine.prepare()
    hub.fault(COMMIT, status=429, headers={"Retry-After": "20"})
    began = mine.patience.clock()
    mine.publish(adapter, RESULT)
    assert mine.patience.clock() - began >= 20
