"""The bridge that joins the nodes and the host, and the routes that keep the cluster's traffic on this machine.

Made before the first node and removed after the last. Names follow from the cluster's id, numbers from its slot.
"""

import json
import subprocess

from localcluster.addresses import Addresses, slot_of

LAST_RESORT = "4278198272"  # a metric that any real route beats


def bridge_name(cluster: str) -> str:
    """Return the name of the cluster's bridge (an interface name has 15 characters at most)."""
    return f"lora-{cluster}"


def link_name(cluster: str, number: int) -> str:
    """Return the name of the host's end of a node's cable."""
    return f"lora-{cluster}-{number}"


def create_bridge(cluster: str, addresses: Addresses) -> None:
    """Make the bridge with the host's address on it; whatever no node takes is unreachable."""
    bridge = bridge_name(cluster)
    _ip("link", "add", bridge, "type", "bridge")
    _ip("address", "add", f"{addresses.bridge}/24", "dev", bridge)
    _ip("link", "set", bridge, "up")
    _ip("route", "add", "unreachable", addresses.network, "metric", LAST_RESORT)


def connect_node(cluster: str, addresses: Addresses, *, number: int, pid: int) -> None:
    """Plug a node's network namespace into the bridge and route its pods to it."""
    link = link_name(cluster, number)
    _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    _ip("link", "set", link, "master", bridge_name(cluster), "up")
    _ip("route", "replace", addresses.pods(number), "via", addresses.node(number))


def route_services(addresses: Addresses) -> None:
    """Let the host reach ClusterIPs, by way of the first node."""
    _ip("route", "replace", addresses.services, "via", addresses.node(1))


def remove(cluster: str, addresses: Addresses | None) -> None:
    """Remove cables, bridge and routes; what is gone already is no matter."""
    if addresses is not None:
        _try_ip("route", "del", "unreachable", addresses.network, "metric", LAST_RESORT)
    for name in sorted(links(cluster), reverse=True):  # the bridge, whose name is the shortest, goes last
        _try_ip("link", "del", name)


def links(cluster: str) -> set[str]:
    """Return the names of the cluster's interfaces on the host."""
    told = subprocess.run(["ip", "-json", "link", "show"], capture_output=True, check=True).stdout
    return {link["ifname"] for link in json.loads(told) if link["ifname"].startswith(bridge_name(cluster))}


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)


def _try_ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], capture_output=True, check=False)


def addresses_of_bridge(cluster: str) -> Addresses | None:
    """Read a cluster's numbers back from its bridge, for a teardown that has lost the state folder."""
    show = ["ip", "-json", "-4", "address", "show", "dev", bridge_name(cluster)]
    told = subprocess.run(show, capture_output=True, check=False)
    if told.returncode != 0:
        return None
    local = [entry["local"] for link in json.loads(told.stdout) for entry in link.get("addr_info", ())]
    return Addresses(slot=slot_of(local[0])) if local else None
