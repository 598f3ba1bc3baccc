"""`lora-inspect hf://...` over the Hub's protocol: what it reads, what it leaves there, what it says of errors."""

from __future__ import annotations

import json

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

import hubserver
from lora_inspect import __main__ as program
from lora_inspect.report import Report
from lora_operator.clients.hub import Hub, Place
from support.adapters import PREFIX, TINY_LLAMA, make_adapter, other_base, safetensors, tensor

ADAPTER, BASE = "acme/bot", "acme/llama"
LARGE = 1 << 20


@pytest.fixture(autouse=True)
def environment(hub: hubserver.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", "hf_read")


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Report]:
    status = program.main([*words, "--format", "json"])
    return status, Report.model_validate_json(capsys.readouterr().out)


def sent(hub: hubserver.Hub) -> int:
    """Return the bytes of files that the Hub sent."""
    return sum(r.sent_bytes for r in hub.requests if "/resolve/" in r.path or r.host == "files")


def base_files(*, shards: int) -> dict[str, bytes]:
    """Return a base model whose config alone tells no shapes, in some shards with a megabyte each."""
    tensors = {name: tensor(np.zeros(shape), "BF16") for name, shape in TINY_LLAMA.weights().items()}
    names = sorted(tensors)
    files = {
        f"model-{number + 1:05}-of-{shards:05}.safetensors": safetensors(
            {name: tensors[name] for name in names[number::shards]}
            | {f"model.layers.0.filler{number}.bias": tensor(np.zeros(LARGE // 4))}
        )
        for number in range(shards)
    }
    return files | {"config.json": json.dumps({"model_type": "mystery"}).encode()}


def test_a_good_adapter_is_told_from_its_header_alone(hub: hubserver.Hub, capsys: pytest.CaptureFixture[str]) -> None:
    files = make_adapter(rank=16, targets=("q_proj", "v_proj", "down_proj", "gate_proj", "up_proj"))
    hub.add_model(ADAPTER, dict(files.files))
    hub.add_model(BASE, {"config.json": json.dumps(TINY_LLAMA.config()).encode()})
    status, report = answer(capsys, f"hf://{ADAPTER}", "--base", f"hf://{BASE}", "--max-lora-rank", "16")
    assert (status, report.servable, report.level, report.shapes_checked) == (0, True, "header", True)
    assert report.digest == files.digest
    assert report.bytes_read == sent(hub)
    assert report.bytes_read < sum(len(data) for data in files.files.values())


def test_weights_are_not_downloaded_and_the_bytes_read_are_told(
    hub: hubserver.Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    large = tensor(np.zeros((8, LARGE)))
    hub.add_model(ADAPTER, dict(make_adapter(tensors={f"{PREFIX}model.layers.0.x.lora_A.weight": large}).files))
    hub.add_model(BASE, base_files(shards=3))
    status, report = answer(capsys, f"hf://{ADAPTER}", "--base", f"hf://{BASE}")
    assert status == 1
    assert report.shapes_checked
    assert report.adapter.size_bytes is not None
    assert report.adapter.size_bytes > 8 * LARGE * 4
    # One guess of 64 KiB a file: the adapter's, and each of three shards.
    assert report.bytes_read == sent(hub) < 5 * 65536
    ranges = [r.range for r in hub.requests if r.host == "files"]
    assert ranges == ["bytes=0-65535"] * 4
    assert program.main([f"hf://{ADAPTER}"]) == 1
    assert "config and headers; values were not checked" in capsys.readouterr().out


def test_shapes_come_from_the_base_s_own_headers(hub: hubserver.Hub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.add_model(BASE, base_files(shards=2))
    hub.add_model(ADAPTER, dict(make_adapter().files))
    assert answer(capsys, f"hf://{ADAPTER}", "--base", f"hf://{BASE}")[0] == 0
    hub.add_model(ADAPTER, dict(make_adapter(base=other_base()).files))
    status, report = answer(capsys, f"hf://{ADAPTER}", "--base", f"hf://{BASE}")
    assert (status, {finding.code for finding in report.findings if finding.severity == "error"}) == (
        1,
        {"ShapeMismatch"},
    )


def test_a_revision_is_read_as_it_was(hub: hubserver.Hub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.add_model(BASE, {"config.json": json.dumps(TINY_LLAMA.config()).encode()})
    old = make_adapter()
    first = hub.add_model(ADAPTER, dict(old.files))
    hub.add_model(ADAPTER, dict(make_adapter(config={"use_dora": True}).files))
    assert answer(capsys, f"hf://{ADAPTER}", "--base", f"hf://{BASE}")[0] == 1
    status, report = answer(capsys, f"hf://{ADAPTER}@{first}", "--base", f"hf://{BASE}")
    assert (status, report.digest) == (0, old.digest)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        pytest.param(["hf://acme/nothing"], "RepositoryNotFound", id="no such repository"),
        pytest.param([f"hf://{ADAPTER}@v9"], "RevisionNotFound", id="no such revision"),
        pytest.param([f"hf://{ADAPTER}", "--base", "hf://acme/nothing"], "RepositoryNotFound", id="no such base"),
    ],
)
def test_what_the_hub_does_not_have_is_2_and_says_what(
    words: list[str], told: str, hub: hubserver.Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.add_model(ADAPTER, dict(make_adapter().files))
    assert program.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err


def test_a_private_repository_needs_a_token(
    hub: hubserver.Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_model(ADAPTER, dict(make_adapter().files), private=True)
    assert program.main([f"hf://{ADAPTER}", "--unknown-shapes", "allow"]) == 0
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert program.main([f"hf://{ADAPTER}"]) == 2
    error = capsys.readouterr().err
    assert "HF_TOKEN" in error
    assert "hf_wrong" not in error


def test_a_hub_that_is_down_or_away_is_2(
    hub: hubserver.Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_model(ADAPTER, dict(make_adapter().files))
    hub.fault(".*", status=503, times=-1)
    assert program.main([f"hf://{ADAPTER}"]) == 2
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert program.main([f"hf://{ADAPTER}"]) == 2
    assert capsys.readouterr().err.count("try again later (HubUnavailable)") == 2


def test_a_repository_without_an_adapter_is_1(hub: hubserver.Hub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.add_model(ADAPTER, {"README.md": b"# nothing yet", "adapter_model.bin": b"\x80\x02."})
    status, report = answer(capsys, f"hf://{ADAPTER}", "--unknown-shapes", "allow")
    assert status == 1
    assert {"MissingConfig", "PickleOnly"} <= {finding.code for finding in report.findings}
    assert report.bytes_read == sent(hub) == 0


def test_an_empty_weights_file_is_1(hub: hubserver.Hub, capsys: pytest.CaptureFixture[str]) -> None:
    files = make_adapter().with_file("adapter_model.safetensors", b"")
    hub.add_model(ADAPTER, dict(files.files))
    status, report = answer(capsys, f"hf://{ADAPTER}", "--unknown-shapes", "allow")
    assert status == 1
    assert "TruncatedFile" in {finding.code for finding in report.findings}


async def test_a_part_is_the_right_one_from_a_mirror_that_knows_no_ranges() -> None:
    async def whole(_: web.Request) -> web.Response:
        return web.Response(body=b"0123456789")

    app = web.Application()
    app.router.add_get("/{path:.+}", whole)
    async with TestServer(app) as server:
        mirror = Hub(str(server.make_url("")))
        place = Place("acme/bot", "main")
        assert await mirror.read(place, "x", token=None, span=(4, 6), limit=3) == b"456"
        assert await mirror.read(place, "x", token=None, span=(0, 2), limit=3) == b"012"
