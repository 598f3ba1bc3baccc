"""How the Hub server keeps and sends content: git's own names, ranges, parts, and a folder that outlives it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from huggingface_hub import HfApi, constants

import hubserver
from hubserver import Token, gitobjects
from support.asking import ask

# The client's own way of sending LFS content is deprecated in the HTTP library that it uses.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
REPO = "acme/support-lora"
CONTENT = b"".join(b"%07d\n" % number for number in range(250_001))


@pytest.mark.parametrize(
    ("asked", "status", "expected"),
    [
        pytest.param(None, 200, CONTENT, id="no range"),
        pytest.param("bytes=0-9", 206, CONTENT[:10], id="the first bytes"),
        pytest.param("bytes=1000-", 206, CONTENT[1000:], id="from an offset"),
        pytest.param("bytes=-7", 206, CONTENT[-7:], id="the last bytes"),
        pytest.param(f"bytes=5-{10**9}", 206, CONTENT[5:], id="beyond the end"),
        pytest.param("bytes=0-1,5-6", 200, CONTENT, id="several ranges"),
        pytest.param(f"bytes={10**9}-", 416, b"", id="outside"),
    ],
)
@pytest.mark.parametrize("name", ["weights.safetensors", "rows.jsonl"])
async def test_a_single_range_is_sent_as_asked(name: str, asked: str | None, status: int, expected: bytes) -> None:
    async with hubserver.serve() as hub, aiohttp.ClientSession(hub.url) as client:
        hub.add_model(REPO, {name: CONTENT})
        headers = {"Range": asked} if asked else {}
        async with client.get(f"/{REPO}/resolve/main/{name}", headers=headers) as response:
            assert (response.status, await response.read()) == (status, expected)
            sent = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
            assert sent[2] == ("" if status == 200 else str(len(CONTENT)))
            if status == 206:
                first, _, last = sent[0].partition("-")
                assert CONTENT[int(first) : int(last) + 1] == expected


async def test_metadata_comes_without_the_content() -> None:
    async with hubserver.serve() as hub, aiohttp.ClientSession(hub.url) as client:
        sha = hub.add_model(REPO, {"config.json": b"{}", "weights.safetensors": CONTENT})
        plain = await ask(client, "HEAD", f"/{REPO}/resolve/main/config.json")
        assert (plain.status, plain.headers["Content-Length"], plain.headers["X-Repo-Commit"]) == (200, "2", sha)
        assert plain.headers["ETag"] == f'"{gitobjects.blob_oid(b"{}")}"'
        linked = await ask(client, "HEAD", f"/{REPO}/resolve/main/weights.safetensors", allow_redirects=False)
        assert (linked.status, linked.headers["X-Linked-Size"]) == (302, str(len(CONTENT)))
        assert linked.headers["X-Repo-Commit"] == sha


async def test_the_file_host_is_another_origin_that_wants_a_signed_link_and_no_token() -> None:
    async with hubserver.serve() as hub, aiohttp.ClientSession(hub.url) as client:
        hub.add_model(REPO, {"weights.safetensors": CONTENT}, private=True)
        token = {"Authorization": "Bearer hf_read"}
        link = await ask(
            client, "GET", f"/{REPO}/resolve/main/weights.safetensors", headers=token, allow_redirects=False
        )
        location = link.headers["Location"]
        assert not location.startswith(hub.url)
        assert (await ask(client, "GET", location)).status == 200
        assert (await ask(client, "GET", location, headers=token)).status == 400
        assert (await ask(client, "GET", location.partition("?")[0])).status == 403


def test_large_files_come_in_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with hubserver.running(multipart_above_bytes=1_000_000, root=tmp_path / "hub") as hub:
        api = HfApi(endpoint=hub.url, token="hf_write")
        api.create_repo(REPO)
        api.upload_file(path_or_fileobj=CONTENT, path_in_repo="weights.safetensors", repo_id=REPO)
        parts = [r.path for r in hub.requests if r.path.startswith("/_lfs/part/")]
        local = api.hf_hub_download(REPO, "weights.safetensors", cache_dir=tmp_path / "cache")
        assert (len(parts), Path(local).read_bytes()) == (3, CONTENT)


async def test_content_that_is_not_what_was_announced_is_refused(tmp_path: Path) -> None:
    async with hubserver.serve(root=tmp_path) as hub, aiohttp.ClientSession(hub.url) as client:
        hub.add_model(REPO, {})
        batch = {"operation": "upload", "objects": [{"oid": "0" * 64, "size": 3}]}
        token = {"Authorization": "Bearer hf_write"}
        answer = await ask(client, "POST", f"/{REPO}.git/info/lfs/objects/batch", json=batch, headers=token)
        (described,) = answer.json()["objects"]
        assert (await ask(client, "PUT", described["actions"]["upload"]["href"], data=b"abc")).status == 400
        assert not list((tmp_path / "blobs").glob(".incoming-*"))
        verified = await ask(
            client, "POST", described["actions"]["verify"]["href"], json=batch["objects"][0], headers=token
        )
        assert verified.status == 404


def test_everything_survives_a_restart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with hubserver.running(root=tmp_path / "hub") as hub:
        api = HfApi(endpoint=hub.url, token="hf_write")
        api.create_repo(REPO, private=True)
        sha = api.upload_file(path_or_fileobj=CONTENT, path_in_repo="weights.safetensors", repo_id=REPO).oid
        api.create_tag(REPO, tag="v1")
        api.update_repo_settings(REPO, gated="auto")
        hub.add_dataset("acme/rows", {"train.jsonl": b"{}\n"})
        before = hub.store.get(gitobjects.RepoKey(type="model", namespace="acme", name="support-lora"))
    with hubserver.running(root=tmp_path / "hub") as hub:
        after = hub.store.get(gitobjects.RepoKey(type="model", namespace="acme", name="support-lora"))
        assert after == before
        api = HfApi(endpoint=hub.url, token="hf_write")
        local = api.hf_hub_download(REPO, "weights.safetensors", revision="v1", cache_dir=tmp_path / "cache")
        assert Path(local).read_bytes() == CONTENT
        assert api.repo_info(REPO, revision="v1").sha == sha
        assert api.dataset_info("acme/rows").sha


def test_commits_have_the_names_that_git_gives_them(tmp_path: Path) -> None:
    contents = {"a.txt": b"a\n", "a/b.txt": b"b", "a.d/c": b"", "z/y/x": b"deep"}

    def git(*arguments: str, **identity: str) -> str:
        command = ["git", "-c", "core.autocrlf=false", *arguments]
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **identity}
        return subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout

    git("init", "-q", ".")
    for path, content in contents.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    git("add", ".")
    who = {f"GIT_{role}_{field}": value for role in ("AUTHOR", "COMMITTER") for field, value in identity_of("alice")}
    git("commit", "-q", "-m", "v1", "-m", "job 42", **who)
    files = {path: gitobjects.regular_file(content) for path, content in contents.items()}
    commit = gitobjects.commit_of(files, parent=None, title="v1", message="job 42", author="alice", at=1_700_000_000)
    assert commit.oid == git("rev-parse", "HEAD").strip()


def identity_of(user: str) -> list[tuple[str, str]]:
    return [("NAME", user), ("EMAIL", f"{user}@users.noreply"), ("DATE", "1700000000 +0000")]


async def test_tokens_and_organisations_can_be_chosen() -> None:
    tokens = {"hf_team": Token(user="bob", role="write", orgs=("globex",))}
    async with hubserver.serve(tokens=tokens) as hub, aiohttp.ClientSession(hub.url) as client:
        asked = {"name": "adapter", "organization": "globex"}
        for secret, status in (("hf_team", 200), ("hf_write", 401)):
            header = {"Authorization": f"Bearer {secret}"}
            assert (await ask(client, "POST", "/api/repos/create", json=asked, headers=header)).status == status


async def test_a_name_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    async with hubserver.serve(root=tmp_path / "hub") as hub, aiohttp.ClientSession(hub.url) as client:
        header = {"Authorization": "Bearer hf_write"}
        for name in ("../x", "..", "a/b", "", ".hidden"):
            answer = await ask(
                client, "POST", "/api/repos/create", json={"name": name, "organization": "acme"}, headers=header
            )
            assert answer.status == 400, name


async def test_the_command_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    tokens, pid_file = tmp_path / "tokens.json", tmp_path / "hub.pid"
    tokens.write_text(json.dumps({"hf_x": {"user": "eve", "role": "read", "orgs": ["acme"]}}))
    options = ["--root", str(tmp_path / "hub"), "--tokens", str(tokens), "--pid-file", str(pid_file)]
    options += ["--request-log", str(tmp_path / "requests.jsonl")]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hubserver", *options), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().strip()
        assert int(pid_file.read_text()) == process.pid
        async with aiohttp.ClientSession(url) as client:
            who = await ask(client, "GET", "/api/whoami-v2", headers={"Authorization": "Bearer hf_x"})
            assert who.json()["name"] == "eve"
    finally:
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    assert not pid_file.exists()
    (logged,) = (tmp_path / "requests.jsonl").read_text().splitlines()
    assert (json.loads(logged)["user"], "hf_x" in logged) == ("eve", False)
