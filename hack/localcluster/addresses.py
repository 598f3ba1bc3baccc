"""Names, address ranges and ports of a cluster: its own, so that several clusters of one machine never meet.

Names follow from the state folder's path, so that teardown finds them with nothing else at hand. The numbers are
a slot, chosen free under a machine-wide lock and kept in the state folder until the cluster is taken down.
"""

import hashlib
import ipaddress
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from machine import lock

SLOTS = 64
FIRST_PORT = 20000  # below the range that the kernel hands out to clients
PORTS_PER_SLOT = 16
FIRST_SECOND_BYTE = 128  # clusters live in 10.128.0.0/16 and up, one /16 each


class NoFreeSlotError(RuntimeError):
    """Every slot's ports or ranges are taken on this machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Addresses:
    """Everything numbered in one cluster, from its slot."""

    slot: int

    def _address(self, third: int, fourth: int) -> str:
        return f"10.{FIRST_SECOND_BYTE + self.slot}.{third}.{fourth}"

    @property
    def network(self) -> str:
        """The range that holds all others; the host sends none of it off the machine."""
        return f"{self._address(0, 0)}/16"

    @property
    def bridge(self) -> str:
        """The host's own address on the nodes' bridge, which pods can reach."""
        return self._address(0, 1)

    @property
    def services(self) -> str:
        """The range of ClusterIPs."""
        return f"{self._address(1, 0)}/24"

    @property
    def kubernetes_service(self) -> str:
        """The first ClusterIP, which the apiserver takes for itself."""
        return self._address(1, 1)

    @property
    def dns(self) -> str:
        """The ClusterIP of cluster DNS."""
        return self._address(1, 10)

    @property
    def all_pods(self) -> str:
        """The range of all pods."""
        return f"{self._address(16, 0)}/20"

    def node(self, number: int) -> str:
        """Return a node's address on the bridge; nodes count from 1."""
        return self._address(0, 10 + number)

    def pods(self, number: int) -> str:
        """Return the range of a node's pods."""
        return f"{self._address(16 + number, 0)}/24"

    def port(self, offset: int) -> int:
        """Return one of the cluster's ports on the host."""
        return FIRST_PORT + PORTS_PER_SLOT * self.slot + offset


def cluster_id(state_dir: Path) -> str:
    """Return the short name of the cluster that a state folder holds."""
    return hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:6]


def slot_of(address: str) -> int:
    """Return the slot that an address of a cluster belongs to."""
    return int(address.split(".")[1]) - FIRST_SECOND_BYTE


def claim(state_dir: Path) -> Addresses:
    """Choose a free slot for a cluster and keep it in its state folder."""
    with _claims() as claims:
        _forget_dead(claims)
        taken = set(claims.values())
        routes = _routes()
        for slot in range(SLOTS):
            addresses = Addresses(slot=slot)
            if slot not in taken and _ports_are_free(addresses) and _is_unrouted(addresses, routes):
                state_dir.mkdir(parents=True, exist_ok=True)
                _slot_file(state_dir).write_text(f"{slot}\n")
                claims[str(state_dir.resolve())] = slot
                return addresses
    raise NoFreeSlotError(
        f"none of {SLOTS} address ranges (10.{FIRST_SECOND_BYTE}.0.0/16 and up) with their ports is free"
    )


def load(state_dir: Path) -> Addresses | None:
    """Return the addresses that a state folder holds, if any."""
    file = _slot_file(state_dir)
    return Addresses(slot=int(file.read_text())) if file.exists() else None


def release(state_dir: Path) -> None:
    """Give a cluster's slot back."""
    with _claims() as claims:
        claims.pop(str(state_dir.resolve()), None)
        _slot_file(state_dir).unlink(missing_ok=True)


def _slot_file(state_dir: Path) -> Path:
    return state_dir / "slot"


@contextmanager
def _claims() -> Iterator[dict[str, int]]:
    """Hold the machine's register of slots (state folder -> slot), written back at the end."""
    register = lock.meeting_place() / "slots.json"
    with lock.held(register.with_suffix(".lock")):
        claims: dict[str, int] = json.loads(register.read_text()) if register.exists() else {}
        yield claims
        partial = register.with_suffix(".partial")
        partial.write_text(json.dumps(claims))
        partial.rename(register)


def _forget_dead(claims: dict[str, int]) -> None:
    """Drop claims whose state folder was deleted: nobody will give those back."""
    for state_dir, slot in list(claims.items()):
        kept = load(Path(state_dir))
        if kept is None or kept.slot != slot:
            del claims[state_dir]


def _ports_are_free(addresses: Addresses) -> bool:
    for offset in range(PORTS_PER_SLOT):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", addresses.port(offset)))
            except OSError:
                return False
    return True


def _routes() -> list[ipaddress.IPv4Network]:
    if shutil.which("ip") is None:  # then no bridge can be made either, and loopback alone is used
        return []
    told = subprocess.run(["ip", "-json", "-4", "route", "show", "table", "all"], capture_output=True, check=True)
    targets = [route["dst"] for route in json.loads(told.stdout or b"[]")]
    return [ipaddress.IPv4Network(target, strict=False) for target in targets if target != "default"]


def _is_unrouted(addresses: Addresses, routes: list[ipaddress.IPv4Network]) -> bool:
    mine = ipaddress.IPv4Network(addresses.network)
    # A route much wider than ours is somebody's way out, and our own narrower ones win over it.
    return not any(mine.overlaps(route) and route.prefixlen > 8 for route in routes)
