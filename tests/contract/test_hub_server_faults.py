"""The trouble that the Hub server makes on demand, as the real client and plain HTTP find it."""

import asyncio
import hashlib
import os
from pathlib import Path

import aiohttp
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError
from huggingface_hub.hf_api import RepoFile

import hubserver
from hubserver import Hub
from support.asking import ask

REPO = "acme/support-lora"
WEIGHTS = os.urandom(300_000)
# The client's own way of sending LFS content is deprecated in the HTTP library that it uses.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
RATE_LIMITED = {"RateLimit": '"api";r=0;t=0', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}


@pytest.fixture
def sha(hub: Hub) -> str:
    return hub.add_model(REPO, {"adapter_config.json": b"{}", "adapter_model.safetensors": WEIGHTS})


@pytest.mark.parametrize(
    ("match", "status"),
    [
        pytest.param("POST /api/models/.*/preupload", 429, id="429 on preupload"),
        pytest.param("POST .*/objects/batch", 429, id="429 on the LFS batch"),
        pytest.param("PUT /_lfs", 503, id="503 on the LFS content"),
        pytest.param("GET /api/models/.*/tree", 429, id="429 on the tree"),
        pytest.param("HEAD .*/resolve/", 429, id="429 on a file's metadata"),
    ],
)
def test_the_client_gets_over_a_fault_that_it_retries(
    api: HfApi, hub: Hub, tmp_path: Path, *, match: str, status: int
) -> None:
    hub.add_model(REPO, {"adapter_config.json": b"{}"})
    hub.fault(match, status=status, headers=RATE_LIMITED if status == 429 else None)
    api.upload_file(path_or_fileobj=os.urandom(5000), path_in_repo="more.bin", repo_id=REPO)
    api.hf_hub_download(REPO, "adapter_config.json", cache_dir=tmp_path)
    assert list(api.list_repo_tree(REPO))
    assert [r.status for r in hub.requests if r.faulted] == [status]


@pytest.mark.parametrize(
    ("match", "status"),
    [
        pytest.param("whoami", 429, id="429 on whoami"),
        pytest.param("GET /api/models/", 429, id="429 on the description"),
        pytest.param("POST /api/models/.*/commit", 503, id="503 on the commit"),
    ],
)
def test_the_client_raises_a_fault_that_it_does_not_retry(
    api: HfApi, hub: Hub, sha: str, match: str, status: int
) -> None:
    hub.fault(match, status=status)

    def everything() -> None:
        HfApi(endpoint=hub.url, token="hf_write").whoami()
        api.repo_info(REPO)
        api.upload_file(path_or_fileobj=b"z", path_in_repo="z.txt", repo_id=REPO)

    with pytest.raises(HfHubHTTPError) as caught:
        everything()
    assert caught.value.response.status_code == status
    everything()


def test_a_fault_can_carry_the_hubs_error_code(api: HfApi, hub: Hub, sha: str) -> None:
    hub.fault("GET /api/models/", status=403, code="GatedRepo")
    with pytest.raises(GatedRepoError):
        api.repo_info(REPO)


def test_a_lasting_fault_holds_until_it_is_cleared(api: HfApi, hub: Hub, sha: str) -> None:
    hub.fault("GET /api/models/", status=503, times=-1)
    for _ in range(3):
        with pytest.raises(HfHubHTTPError):
            api.repo_info(REPO)
    hub.clear_faults()
    assert api.repo_info(REPO).sha == sha


def test_tampered_content_keeps_its_names_and_size_but_not_its_sha256(
    api: HfApi, hub: Hub, sha: str, tmp_path: Path
) -> None:
    hub.tamper(REPO, "adapter_model.safetensors")
    served = Path(api.hf_hub_download(REPO, "adapter_model.safetensors", cache_dir=tmp_path / "1")).read_bytes()
    (info,) = api.get_paths_info(REPO, "adapter_model.safetensors")
    assert isinstance(info, RepoFile)
    assert info.lfs is not None
    assert info.lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert len(served) == info.size
    assert served != WEIGHTS
    hub.untamper()
    honest = Path(api.hf_hub_download(REPO, "adapter_model.safetensors", cache_dir=tmp_path / "2")).read_bytes()
    assert honest == WEIGHTS


async def arrival_of_a_request(hub: Hub) -> None:
    while not hub.requests:  # noqa: ASYNC110 - the server is asked as another process would ask it
        await asyncio.sleep(0.01)


async def test_a_request_hangs_until_the_faults_are_cleared() -> None:
    async with hubserver.serve() as hub, aiohttp.ClientSession(hub.url) as client:
        hub.add_model(REPO, {"a.txt": b"a"})
        hub.fault("GET /api/models/", delay_seconds=3600, times=-1)
        asking = asyncio.create_task(ask(client, "GET", f"/api/models/{REPO}"))
        async with asyncio.timeout(120):
            await arrival_of_a_request(hub)
        assert not asking.done()
        assert hub.requests[0].status is None
        hub.clear_faults()
        assert (await asking).status == 200


async def test_a_download_breaks_off_and_can_be_resumed_by_range() -> None:
    async with hubserver.serve() as hub, aiohttp.ClientSession(hub.url) as client:
        sha = hub.add_model(REPO, {"adapter_model.safetensors": WEIGHTS})
        link = f"/{REPO}/resolve/{sha}/adapter_model.safetensors"
        hub.fault("GET /_lfs/", cut_after_bytes=100_000)
        async with client.get(link) as response:
            got = await response.content.readexactly(100_000)
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.content.read()
        assert got == WEIGHTS[: len(got)]
        async with client.get(link, headers={"Range": f"bytes={len(got)}-"}) as rest:
            assert got + await rest.read() == WEIGHTS


async def test_another_process_makes_faults_and_reads_the_requests_over_http() -> None:
    async with hubserver.serve() as hub, aiohttp.ClientSession(hub.url) as client:
        hub.add_model(REPO, {"a.txt": b"abc"})
        fault = {"match": "GET /api/models/", "status": 503, "times": -1, "headers": {"Retry-After": "1"}}
        assert (await ask(client, "POST", "/_test/fault", json=fault)).status == 200
        refused = await ask(client, "GET", f"/api/models/{REPO}")
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert (await ask(client, "DELETE", "/_test/fault")).status == 200
        assert (await ask(client, "GET", f"/api/models/{REPO}")).status == 200
        assert (await ask(client, "POST", "/_test/tamper", json={"repo": REPO, "path": "a.txt"})).status == 200
        tampered = await ask(client, "GET", f"/{REPO}/resolve/main/a.txt", headers={"Authorization": "Bearer hf_read"})
        assert tampered.body == b"ab" + bytes([ord("c") ^ 0xFF])
        text = (await ask(client, "GET", "/_test/requests", params={"match": "GET /.*resolve"})).body.decode()
        assert "hf_read" not in text
        assert '"token_sent": true' in text
        assert '"sent_bytes": 3' in text


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"match": "(", "status": 503}, id="no pattern"),
        pytest.param({"match": "x", "statsu": 503}, id="unknown field"),
        pytest.param({"status": 503}, id="nothing to match"),
    ],
)
async def test_a_fault_that_makes_no_sense_is_refused(fault: dict[str, object]) -> None:
    async with hubserver.serve() as hub, aiohttp.ClientSession(hub.url) as client:
        assert (await ask(client, "POST", "/_test/fault", json=fault)).status == 400
