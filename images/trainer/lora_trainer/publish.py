"""Publishing: one commit that holds the whole adapter, or nothing.

The commit's message ends with the job's uid. Who finds it there has found the result: a second attempt of the same job
trains nothing and publishes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from lora_operator.adapter import CONFIG, WEIGHTS, Verdict
from lora_operator.adapter.names import PICKLES, is_weights
from lora_operator.protocol.training import COMMIT_TRAILER, RESULT_FILE, Artifact, Reason, Result, read_result
from lora_trainer import hub, log
from lora_trainer.hub import Denied, Patience
from lora_trainer.result import Refusal
from lora_trainer.spec import TrainSpec, published_to

CARD: Final = "README.md"
CURVE: Final = "loss.svg"
FILES: Final = (CONFIG, WEIGHTS, CARD, CURVE, RESULT_FILE)
LOOK_BACK_COMMITS: Final = 50
CONFLICTS: Final = (409, 412)
"""How the Hub answers a commit that met another one: it is looked again, and tried again."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Publisher:
    """The output repository, as this job sees it."""

    repo: str
    private: bool
    job_uid: str
    tag: str | None = None
    """None: by the adapter's digest."""
    api: HfApi
    patience: Patience

    @classmethod
    def of(cls, spec: TrainSpec, *, token: str | None, job_uid: str, patience: Patience) -> Publisher:
        """Return the publisher for a spec's output."""
        output = published_to(spec)
        return cls(
            repo=output.repo,
            private=output.private,
            job_uid=job_uid,
            tag=output.tag,
            api=HfApi(token=token),
            patience=patience,
        )

    def prepare(self) -> None:
        """Make sure, before anything is trained, that the repository is there and this token may write to it."""
        self._make()
        self._call(lambda: self.api.auth_check(self.repo, write=True))
        if self.tag is not None and (commit := self._tags().get(self.tag)) is not None:
            raise Refusal(
                Reason.CONFIG_INVALID,
                f"output.hub.tag: {self.repo} has a tag {self.tag} already, at {commit[:12]}; a tag is never moved: "
                "choose another",
            )

    def earlier(self) -> Result | None:
        """Return what this job published before, in another attempt; None where it has not."""
        if not self.job_uid or not self._exists():
            return None
        commits = self._call(lambda: self.api.list_repo_commits(self.repo))
        trailer = _trailer(self.job_uid)
        for commit in commits[:LOOK_BACK_COMMITS]:
            if trailer in commit.message.splitlines():
                found = self._result_at(commit.commit_id)
                return self._tagged(found)
        return None

    def publish(self, folder: Path, result: Result) -> Result:
        """Commit the adapter's files in one go, tag the commit, and return the Result with both in it."""
        result = self._with_tag(result)
        self._make()  # `--publish-only` is the first to need it
        (folder / RESULT_FILE).write_text(result.model_dump_json(by_alias=True, exclude_none=True, indent=2) + "\n")
        log.say(f"publishing to {self.repo}")
        return self._tagged(self._call(lambda: self._commit_once(folder, result), also_passing=CONFLICTS))

    def _commit_once(self, folder: Path, result: Result) -> Result:
        # After a 5xx nobody knows whether the commit before was made: look before making another.
        if earlier := self.earlier():
            return earlier
        stale = [name for name in self.api.list_repo_files(self.repo) if _is_stale(name)]
        commit = self.api.create_commit(
            self.repo,
            [
                *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in FILES),
                *(CommitOperationDelete(path_in_repo=name) for name in stale),
            ],
            commit_message=f"Publish an adapter of {result.steps} steps",
            commit_description=_trailer(self.job_uid) if self.job_uid else "",
        )
        return _with_commit(result, commit.oid)

    def _make(self) -> None:
        if not self._exists():
            self._call(lambda: self.api.create_repo(self.repo, private=self.private, exist_ok=True))

    def _with_tag(self, result: Result) -> Result:
        found = _artifact_of(result)
        tag = self.tag or f"lora-{found.digest.removeprefix('sha256:')[:12]}"
        return result.model_copy(update={"artifact": found.model_copy(update={"repo": self.repo, "tag": tag})})

    def _tagged(self, result: Result) -> Result:
        """Make the tag where it is missing. One that is there stays where it is."""
        found = _artifact_of(result)
        if (tag := found.tag) is None:
            return result
        there = self._tags().get(tag)
        if there is None:
            self._call(lambda: self.api.create_tag(self.repo, tag=tag, revision=found.commit, exist_ok=True))
        elif there != found.commit:
            log.say(f"{self.repo} has a tag {tag} at {there[:12]} already: it stays there")
        return result

    def _tags(self) -> dict[str, str]:
        return {tag.name: tag.target_commit for tag in self._call(lambda: self.api.list_repo_refs(self.repo)).tags}

    def _exists(self) -> bool:
        return self._call(lambda: self.api.repo_exists(self.repo))

    def _result_at(self, commit: str) -> Result:
        path = self._call(lambda: self.api.hf_hub_download(self.repo, RESULT_FILE, revision=commit))
        result = read_result(Path(path).read_text(encoding="utf-8"))
        if result is None or result.artifact is None:
            raise Refusal(Reason.TRAINING_FAILED, f"{self.repo} at {commit}: its {RESULT_FILE} can't be read")
        log.say(f"published before, in {self.repo} at {commit[:12]}")
        return _with_commit(result, commit)

    def _call(self, function: Callable[[], T], *, also_passing: Collection[int] = ()) -> T:
        return hub.call(
            function,
            what=f"output.hub {self.repo}",
            patience=self.patience,
            denied=self._unauthorized,
            also_passing=also_passing,
        )

    def _unauthorized(self, denied: Denied) -> Refusal:
        return Refusal(
            Reason.HUB_UNAUTHORIZED,
            f"output.hub.repo: the token in output.hub.tokenSecretRef may not write to {self.repo} ({denied.words})",
        )


def artifact(repo: str, verdict: Verdict) -> Artifact:
    """Return the artifact before its commit is known: that is how it lies in the commit itself."""
    summary = verdict.summary
    if summary.digest is None or summary.size_bytes is None:
        raise ValueError("an adapter that was read in full has a digest and a size")
    return Artifact(
        repo=repo,
        commit="",
        digest=summary.digest,
        size_bytes=summary.size_bytes,
        servable=verdict.servable,
    )


def _with_commit(result: Result, commit: str) -> Result:
    found = _artifact_of(result)
    return result.model_copy(update={"artifact": found.model_copy(update={"commit": commit})})


def _artifact_of(result: Result) -> Artifact:
    if result.artifact is None:
        raise ValueError("a result without an artifact can't be published")
    return result.artifact


def _trailer(job_uid: str) -> str:
    return f"{COMMIT_TRAILER}: {job_uid}"


def _is_stale(name: str) -> bool:
    """Tell whether a file of the repository would be taken for weights of the adapter that is being published."""
    shards = is_weights(name) and name != WEIGHTS
    return shards or name in PICKLES or name.endswith(".safetensors.index.json")
