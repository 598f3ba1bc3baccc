"""A data set from a web server is taken only with the digest that the spec gives."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lora_operator.api.dataset import UrlDataset
from lora_operator.protocol.training import Reason
from lora_trainer import download
from lora_trainer.hub import Patience
from lora_trainer.result import Refusal

CONTENT = b'{"text": "a"}\n' * 100_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """A web server on loopback: what it answers next, and how often it was asked."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                status = outer.statuses.pop(0) if outer.statuses else 200
                self.send_response(status)
                self.end_headers()
                if status == 200:
                    self.wfile.write(CONTENT)

            def log_request(self, *_: object) -> None:
                return

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/data/rows.jsonl?v=3"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever)
    thread.start()
    yield server
    server.http.shutdown()
    thread.join()
    server.http.server_close()


def fetch(server: Server, folder: Path, *, sha256: str = DIGEST, seconds: float = 60) -> Path:
    source = UrlDataset(uri=server.url, sha256=sha256)
    clock = [0.0]

    def sleep(wait: float) -> None:
        clock[0] += wait

    return download.fetch(source, folder, patience=Patience(seconds=seconds, clock=lambda: clock[0], sleep=sleep))


def test_a_file_is_fetched_once_and_named_as_its_url_ends(server: Server, tmp_path: Path) -> None:
    path = fetch(server, tmp_path)
    assert (path.name, path.read_bytes()) == ("rows.jsonl", CONTENT)
    assert fetch(server, tmp_path) == path
    assert server.asked == 1


def test_another_content_is_refused_and_not_kept(server: Server, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"dataset.source.url.sha256: the file has ") as refused:
        fetch(server, tmp_path, sha256="0" * 64)
    assert refused.value.reason is Reason.DATASET_INVALID
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_server_in_trouble_is_waited_for(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 429]
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    server.statuses = [503] * 100
    with pytest.raises(Refusal, match=r"dataset.source.url: 127.0.0.1 is not available") as refused:
        fetch(server, tmp_path / "other", seconds=10)
    assert refused.value.reason is Reason.HUB_UNAVAILABLE


def test_a_file_that_is_not_there_is_told(server: Server, tmp_path: Path) -> None:
    server.statuses = [404]
    with pytest.raises(Refusal, match=r"dataset.source.url.uri: the server answers 404") as refused:
        fetch(server, tmp_path)
    assert refused.value.reason is Reason.DATASET_INVALID
