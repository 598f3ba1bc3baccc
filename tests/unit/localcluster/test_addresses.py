"""Clusters of one machine never share a name, a range or a port."""

import ipaddress
import itertools
import shutil
from pathlib import Path

import pytest

from localcluster import addresses
from localcluster.addresses import Addresses
from machine import lock


@pytest.fixture(autouse=True)
def register_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "machine"
    folder.mkdir()
    monkeypatch.setattr(lock, "meeting_place", lambda: folder)
    monkeypatch.setattr(addresses, "_routes", list)
    monkeypatch.setattr(addresses, "_ports_are_free", lambda _: True)


def test_two_state_folders_get_different_slots(tmp_path: Path) -> None:
    first, second = (addresses.claim(tmp_path / name) for name in ("a", "b"))
    assert first.slot != second.slot
    assert first.network != second.network


def test_a_slot_is_kept_until_it_is_given_back(tmp_path: Path) -> None:
    first = addresses.claim(tmp_path / "a")
    assert addresses.load(tmp_path / "a") == first
    addresses.release(tmp_path / "a")
    assert addresses.load(tmp_path / "a") is None
    assert addresses.claim(tmp_path / "b") == first


def test_the_slot_of_a_deleted_state_folder_is_free_again(tmp_path: Path) -> None:
    first = addresses.claim(tmp_path / "a")
    shutil.rmtree(tmp_path / "a")
    assert addresses.claim(tmp_path / "b") == first


def test_a_range_that_the_machine_routes_elsewhere_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = ipaddress.IPv4Network("10.128.64.0/18")
    monkeypatch.setattr(addresses, "_routes", lambda: [office])
    chosen = ipaddress.IPv4Network(addresses.claim(tmp_path / "a").network)
    assert not chosen.overlaps(office)


def test_a_slot_with_a_port_in_use_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_ports_are_free", lambda candidate: candidate.slot == 3)
    assert addresses.claim(tmp_path / "a").slot == 3


def test_no_free_slot_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_ports_are_free", lambda _: False)
    with pytest.raises(addresses.NoFreeSlotError, match="none of 64"):
        addresses.claim(tmp_path / "a")


def test_all_ranges_of_a_cluster_lie_in_its_network_and_none_overlap() -> None:
    mine = Addresses(slot=5)
    ranges = [f"{mine.node(9)}/32", f"{mine.bridge}/32", mine.services, *(mine.pods(n) for n in range(1, 10))]
    networks = [ipaddress.IPv4Network(text) for text in ranges]
    assert all(network.subnet_of(ipaddress.IPv4Network(mine.network)) for network in networks)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(networks, 2))
    assert all(
        ipaddress.IPv4Network(mine.pods(n)).subnet_of(ipaddress.IPv4Network(mine.all_pods)) for n in range(1, 10)
    )
    assert ipaddress.ip_address(mine.dns) in ipaddress.IPv4Network(mine.services)


def test_the_last_slot_is_a_private_range_and_below_the_clients_ports() -> None:
    last = Addresses(slot=addresses.SLOTS - 1)
    assert ipaddress.IPv4Network(last.network).is_private
    assert last.port(addresses.PORTS_PER_SLOT - 1) < 32768


def test_a_cluster_is_named_after_its_folder(tmp_path: Path) -> None:
    assert addresses.cluster_id(tmp_path / "a") == addresses.cluster_id(tmp_path / "b" / ".." / "a")
    assert addresses.cluster_id(tmp_path / "a") != addresses.cluster_id(tmp_path / "b")
