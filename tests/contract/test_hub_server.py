"""The Hub server as the real client finds it: repositories, commits, names, permissions and downloads."""

import hashlib
import os
from pathlib import Path

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hubserver import Hub

# The client's own way of sending LFS content is deprecated in the HTTP library that it uses.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
REPO = "acme/support-lora"
WEIGHTS = os.urandom(3_000_000)
CONFIG = b'{"r": 8}'


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    (folder / "sub").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlibrary_name: peft\n---\n# An adapter\n")
    (folder / "adapter_config.json").write_bytes(CONFIG)
    (folder / "adapter_model.safetensors").write_bytes(WEIGHTS)
    (folder / "empty.txt").write_bytes(b"")
    (folder / "sub" / "note.txt").write_text("ü")
    return folder


@pytest.fixture
def first(api: HfApi, adapter: Path) -> str:
    """The commit of a private repository that holds the adapter."""
    api.create_repo(REPO, private=True)
    return api.upload_folder(folder_path=adapter, repo_id=REPO, commit_message="v1", commit_description="job 42").oid


def status_of(caught: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return caught.value.response.status_code


def test_a_token_is_told_whose_it_is_and_what_it_may(api: HfApi) -> None:
    who = api.whoami()
    assert (who["name"], [org["name"] for org in who["orgs"]]) == ("alice", ["acme"])
    assert who["auth"]["accessToken"]["role"] == "write"
    with pytest.raises(HfHubHTTPError) as caught:
        api.whoami(token="hf_unheard_of")
    assert status_of(caught) == 401


def test_a_repository_is_made_once(api: HfApi, hub: Hub) -> None:
    url = api.create_repo(REPO, private=True)
    assert str(url) == f"{hub.url}/{REPO}"
    assert api.repo_info(REPO).private
    assert str(api.create_repo(REPO, exist_ok=True)) == str(url)
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_repo(REPO)
    assert status_of(caught) == 409


def test_a_deleted_repository_is_gone(api: HfApi, first: str) -> None:
    api.delete_repo(REPO)
    with pytest.raises(RepositoryNotFoundError):
        api.repo_info(REPO, revision=first)
    with pytest.raises(RepositoryNotFoundError) as caught:
        api.delete_repo(REPO)
    assert status_of(caught) == 404
    api.delete_repo(REPO, missing_ok=True)


@pytest.mark.parametrize(
    ("token", "status"),
    [
        pytest.param("hf_read", 403, id="a read token"),
        pytest.param("hf_other", 403, id="a stranger's token"),
        pytest.param(False, 401, id="no token"),
    ],
)
def test_only_a_write_token_of_the_owner_writes(api: HfApi, first: str, token: str | bool, status: int) -> None:
    api.update_repo_settings(REPO, private=False)
    with pytest.raises(HfHubHTTPError) as caught:
        api.upload_file(path_or_fileobj=b"x", path_in_repo="a.txt", repo_id=REPO, token=token)
    assert status_of(caught) == status
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_repo("acme/another", token=token)
    assert status_of(caught) == status
    assert api.repo_info(REPO).sha == first


@pytest.mark.parametrize(
    ("token", "status"),
    [
        pytest.param(False, 401, id="no token"),
        pytest.param("hf_other", 404, id="a stranger's token"),
    ],
)
def test_a_private_repository_does_not_exist_for_others(api: HfApi, first: str, token: str | bool, status: int) -> None:
    with pytest.raises(RepositoryNotFoundError) as caught:
        api.repo_info(REPO, revision=first, token=token)
    assert status_of(caught) == status


def test_a_wrong_token_is_refused_even_where_none_is_needed(api: HfApi, first: str) -> None:
    api.update_repo_settings(REPO, private=False)
    assert api.repo_info(REPO, token=False).private is False
    with pytest.raises(HfHubHTTPError) as caught:
        api.repo_info(REPO, token="hf_unheard_of")
    assert status_of(caught) == 401


def test_files_of_a_gated_repository_are_for_those_who_were_let_in(api: HfApi, first: str, tmp_path: Path) -> None:
    api.update_repo_settings(REPO, private=False, gated="manual")
    assert api.repo_info(REPO, token="hf_other").gated == "manual"
    for token, status in ((False, 401), ("hf_other", 403)):
        with pytest.raises(GatedRepoError) as caught:
            api.auth_check(REPO, token=token)
        assert status_of(caught) == status
        with pytest.raises(GatedRepoError):
            api.hf_hub_download(REPO, "adapter_config.json", token=token, cache_dir=tmp_path / "out")
    api.grant_access(REPO, "mallory")
    assert Path(api.hf_hub_download(REPO, "adapter_config.json", token="hf_other", cache_dir=tmp_path)).exists()


def test_write_access_can_be_asked_for_before_anything_is_written(api: HfApi, first: str) -> None:
    api.auth_check(REPO, write=True)
    with pytest.raises(HfHubHTTPError) as caught:
        api.auth_check(REPO, write=True, token="hf_read")
    assert status_of(caught) == 403


def test_an_upload_is_described_with_the_names_that_git_and_lfs_give_it(api: HfApi, first: str) -> None:
    info = api.model_info(REPO, revision=first, files_metadata=True)
    files = {sibling.rfilename: sibling for sibling in info.siblings or []}
    assert info.sha == first
    assert set(files) >= {"README.md", "adapter_config.json", "adapter_model.safetensors", "empty.txt", "sub/note.txt"}
    weights = files["adapter_model.safetensors"]
    assert weights.lfs is not None
    assert (weights.size, weights.lfs.sha256) == (len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest())
    assert files["empty.txt"].blob_id == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert files["adapter_config.json"].lfs is None


def test_an_unchanged_upload_makes_no_commit(api: HfApi, first: str, adapter: Path) -> None:
    assert api.upload_folder(folder_path=adapter, repo_id=REPO).oid == first
    assert len(api.list_repo_commits(REPO)) == 2


def test_a_commit_adds_replaces_and_deletes(api: HfApi, first: str) -> None:
    operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [
        CommitOperationAdd("adapter_config.json", b'{"r": 16}'),
        CommitOperationAdd("new.bin", os.urandom(100_000)),
        CommitOperationDelete("sub/"),
    ]
    second = api.create_commit(REPO, operations, commit_message="v2", parent_commit=first).oid
    assert set(api.list_repo_files(REPO, revision=second)) == {
        *(".gitattributes", "README.md", "adapter_config.json", "adapter_model.safetensors", "empty.txt", "new.bin"),
    }
    assert "sub/note.txt" in api.list_repo_files(REPO, revision=first)


def test_a_commit_on_a_parent_that_is_no_longer_the_newest_is_refused(api: HfApi, first: str) -> None:
    second = api.upload_file(path_or_fileobj=b"2", path_in_repo="a.txt", repo_id=REPO, parent_commit=first).oid
    with pytest.raises(HfHubHTTPError) as caught:
        api.upload_file(path_or_fileobj=b"3", path_in_repo="a.txt", repo_id=REPO, parent_commit=first)
    assert status_of(caught) == 412
    assert api.repo_info(REPO).sha == second


def test_a_commit_cannot_name_lfs_content_that_was_never_sent(api: HfApi, first: str, hub: Hub) -> None:
    hub.fault("POST .*/objects/batch", status=400)
    with pytest.raises(BadRequestError):
        api.upload_file(path_or_fileobj=os.urandom(4000), path_in_repo="lost.bin", repo_id=REPO)
    assert api.repo_info(REPO).sha == first


def test_commits_are_listed_with_title_and_description(api: HfApi, first: str) -> None:
    newest, oldest = api.list_repo_commits(REPO)
    assert (newest.commit_id, newest.title, newest.message, newest.authors) == (first, "v1", "job 42", ["alice"])
    assert oldest.title == "initial commit"


def test_a_long_history_comes_in_pages(api: HfApi, first: str, hub: Hub) -> None:
    for number in range(60):
        hub.add_model(REPO, {"count.txt": str(number).encode()})
    assert len(api.list_repo_commits(REPO)) == 62
    assert len([r for r in hub.requests if "/commits/" in r.path]) == 2


def test_tags_and_branches_point_to_commits(api: HfApi, first: str) -> None:
    api.create_tag(REPO, tag="v1", revision=first)
    api.create_branch(REPO, branch="dev", revision=first)
    on_dev = api.upload_file(path_or_fileobj=b"dev", path_in_repo="dev.txt", repo_id=REPO, revision="dev").oid
    refs = api.list_repo_refs(REPO)
    assert {branch.name: branch.target_commit for branch in refs.branches} == {"main": first, "dev": on_dev}
    assert {tag.name: tag.target_commit for tag in refs.tags} == {"v1": first}
    assert api.repo_info(REPO, revision="v1").sha == first
    assert api.repo_info(REPO, revision="refs/heads/dev").sha == on_dev


def test_tags_and_branches_are_made_once_and_deleted(api: HfApi, first: str) -> None:
    api.create_tag(REPO, tag="v1")
    api.create_branch(REPO, branch="dev")
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_tag(REPO, tag="v1")
    assert status_of(caught) == 409
    api.create_tag(REPO, tag="v1", exist_ok=True)
    api.create_branch(REPO, branch="dev", exist_ok=True)
    api.delete_tag(REPO, tag="v1")
    api.delete_branch(REPO, branch="dev")
    refs = api.list_repo_refs(REPO)
    assert ([branch.name for branch in refs.branches], refs.tags) == (["main"], [])


def test_the_tree_is_listed_whole_by_folder_and_by_path(api: HfApi, first: str) -> None:
    whole = {entry.path for entry in api.list_repo_tree(REPO, recursive=True)}
    assert {"sub", "sub/note.txt", "adapter_model.safetensors"} <= whole
    assert [entry.path for entry in api.list_repo_tree(REPO, "sub")] == ["sub/note.txt"]
    (known,) = api.get_paths_info(REPO, ["adapter_config.json", "nowhere"], expand=True)
    assert known.last_commit is not None
    assert (known.path, known.last_commit.title) == ("adapter_config.json", "v1")


def test_what_does_not_exist_is_told_apart(api: HfApi, first: str, tmp_path: Path) -> None:
    assert api.repo_exists(REPO)
    assert not api.revision_exists(REPO, "nope")
    assert not api.file_exists(REPO, "nope")
    with pytest.raises(RevisionNotFoundError) as no_revision:
        api.repo_info(REPO, revision="nope")
    assert status_of(no_revision) == 404
    with pytest.raises(EntryNotFoundError) as no_entry:
        api.hf_hub_download(REPO, "nope.json", cache_dir=tmp_path)
    assert not isinstance(no_entry.value, LocalEntryNotFoundError)
    with pytest.raises(RepositoryNotFoundError):
        api.repo_info("acme/nothing")


def test_a_snapshot_is_the_pinned_commit_and_serves_offline_afterwards(
    api: HfApi, first: str, hub: Hub, tmp_path: Path
) -> None:
    api.upload_file(path_or_fileobj=b'{"r": 16}', path_in_repo="adapter_config.json", repo_id=REPO)
    folder = snapshot_download(REPO, revision=first, endpoint=hub.url, token="hf_read", cache_dir=tmp_path)
    assert Path(folder, "adapter_model.safetensors").read_bytes() == WEIGHTS
    assert Path(folder, "adapter_config.json").read_bytes() == CONFIG
    assert Path(folder).name == first
    assert snapshot_download(REPO, revision=first, local_files_only=True, cache_dir=tmp_path) == folder
    newest = hf_hub_download(REPO, "adapter_config.json", endpoint=hub.url, token="hf_read", cache_dir=tmp_path)
    assert Path(newest).read_bytes() == b'{"r": 16}'


def test_the_file_host_sees_no_token(api: HfApi, first: str, hub: Hub, tmp_path: Path) -> None:
    api.hf_hub_download(REPO, "adapter_model.safetensors", cache_dir=tmp_path)
    at_file_host = [(r.method, r.token_sent) for r in hub.requests if r.host == "files"]
    assert at_file_host == [("PUT", False), ("GET", False)]
    assert all(r.token_sent and r.user == "alice" for r in hub.requests if r.host == "api")


def test_the_header_of_a_safetensors_file_is_read_by_range(api: HfApi, hub: Hub) -> None:
    header = b'{"a.lora_A.weight":{"dtype":"F32","shape":[4,64],"data_offsets":[0,1024]}}'
    content = len(header).to_bytes(8, "little") + header + bytes(1_000_000)
    hub.add_model(REPO, {"adapter_model.safetensors": content})
    metadata = api.parse_safetensors_file_metadata(REPO, "adapter_model.safetensors")
    assert metadata.tensors["a.lora_A.weight"].shape == [4, 64]
    (read,) = [r for r in hub.requests if r.host == "files"]
    assert read.status == 206
    assert read.sent_bytes < len(content)


def test_data_sets_are_repositories_beside_models(api: HfApi, tmp_path: Path) -> None:
    rows = b'{"text": "one"}\n{"text": "two"}\n'
    api.create_repo("acme/rows", repo_type="dataset", private=True)
    sha = api.upload_file(
        path_or_fileobj=rows, path_in_repo="data/train.jsonl", repo_id="acme/rows", repo_type="dataset"
    ).oid
    assert api.dataset_info("acme/rows").sha == sha
    assert not api.repo_exists("acme/rows")
    assert [d.id for d in api.list_datasets(author="acme")] == ["acme/rows"]
    local = api.hf_hub_download("acme/rows", "data/train.jsonl", repo_type="dataset", cache_dir=tmp_path)
    assert Path(local).read_bytes() == rows
    api.delete_repo("acme/rows", repo_type="dataset")
    assert not api.repo_exists("acme/rows", repo_type="dataset")


def test_a_data_set_is_found_by_pattern_and_read_by_block(hub: Hub) -> None:
    rows = b"".join(b'{"text": "%04d"}\n' % number for number in range(1000))
    sha = hub.add_dataset("acme/rows", {"data/train.jsonl": rows, "README.md": b"# Rows\n"}, private=True)
    files = HfFileSystem(endpoint=hub.url, token="hf_read", skip_instance_cache=True)
    (found,) = files.glob(f"datasets/acme/rows@{sha}/**/*.jsonl")
    assert files.info(found)["size"] == len(rows)
    with files.open(found, "rb", block_size=4096) as file:
        file.seek(170)
        assert file.readline() == b'{"text": "0010"}\n'
    ranges = [r.range for r in hub.requests if r.method == "GET" and "/resolve/" in r.path]
    assert ranges
    assert all(ranges)
