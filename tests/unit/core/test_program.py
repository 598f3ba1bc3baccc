"""Starting: kopf calls it again, in the same process, where it failed."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any

import pytest

from lora_operator import program
from lora_operator.settings import Settings


@dataclass
class Connection:
    """What a start opens and has to close."""

    open: int = 0

    async def close(self) -> None:
        """Count it as closed."""
        self.open -= 1


async def test_a_start_that_failed_leaves_its_ports_to_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Connection()

    async def connect(**_: Any) -> Connection:
        connection.open += 1
        return connection

    monkeypatch.setattr(program.kube_client, "connect", connect)
    monkeypatch.setattr(program, "WATCHED", ())
    monkeypatch.setattr(program, "progress_endpoint", _endpoint)
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        metrics, progress = free.getsockname()[1], taken.getsockname()[1]
        free.close()
        starting = program.Program(Settings(metrics_port=metrics, progress_port=progress))
        with pytest.raises(OSError, match="address already in use"):
            await starting.start()
    assert connection.open == 0

    await starting.start()
    assert connection.open == 1
    await starting.stop()
    assert connection.open == 0


async def _endpoint(_: object) -> program.Endpoint:
    plain: Any = None
    return program.Endpoint(program.health_application(ready=lambda: True, alive=lambda: True), plain)
