"""The switch that joins the nodes and the host, and the routes that keep the cluster's traffic on this machine.

The switch is a bridge in a network namespace of its own, with one cable to the host: a firewall of the host's, such
as the one that Docker sets up for bridges, never sees what the nodes say to each other. The host changes nothing of
its own but that cable and its routes.
"""

import json
import subprocess
from pathlib import Path

from localcluster import processes
from localcluster.addresses import Addresses, slot_of

SWITCH = "switch"
LAST_RESORT = "4278198272"  # a metric that any real route beats


def link_name(cluster: str) -> str:
    """Return the name of the host's end of the cable to the switch (15 characters at most)."""
    return f"lora-{cluster}"


def create(cluster: str, addresses: Addresses, *, log: Path) -> None:
    """Make the switch and plug the host into it; an address that no node takes is unreachable."""
    pid = processes.start(["unshare", "--net", "sleep", "infinity"], cluster=cluster, part=SWITCH, log=log)
    ours = Path("/proc/self/ns/net").readlink()
    processes.wait_for("the switch's namespace", lambda: Path(f"/proc/{pid}/ns/net").readlink() != ours)
    link = link_name(cluster)
    _ip("link", "add", link, "type", "veth", "peer", "name", "host", "netns", str(pid))
    _ip("link", "add", SWITCH, "type", "bridge", inside=pid)
    _ip("link", "set", SWITCH, "up", inside=pid)
    _ip("link", "set", "host", "master", SWITCH, "up", inside=pid)
    _ip("address", "add", f"{addresses.bridge}/24", "dev", link)
    _ip("link", "set", link, "up")
    _ip("route", "add", "unreachable", addresses.network, "metric", LAST_RESORT)


def connect_node(cluster: str, addresses: Addresses, *, number: int, pid: int) -> None:
    """Plug a node's network namespace into the switch and route its pods to it."""
    switch = next(found.pid for found in processes.find(cluster) if found.part == SWITCH)
    port = f"node-{number}"
    _ip("link", "add", port, "netns", str(switch), "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    _ip("link", "set", port, "master", SWITCH, "up", inside=switch)
    _ip("route", "replace", addresses.pods(number), "via", addresses.node(number))


def route_services(addresses: Addresses) -> None:
    """Let the host reach ClusterIPs, by way of the first node."""
    _ip("route", "replace", addresses.services, "via", addresses.node(1))


def remove(cluster: str, addresses: Addresses | None) -> None:
    """Remove the host's cable and routes; what is gone already is no matter. The switch goes with its process."""
    if addresses is not None:
        _try_ip("route", "del", "unreachable", addresses.network, "metric", LAST_RESORT)
    _try_ip("link", "del", link_name(cluster))


def links(cluster: str) -> set[str]:
    """Return the names of the cluster's interfaces on the host."""
    told = subprocess.run(["ip", "-json", "link", "show"], capture_output=True, check=True).stdout
    return {link["ifname"] for link in json.loads(told) if link["ifname"].startswith(link_name(cluster))}


def addresses_of_link(cluster: str) -> Addresses | None:
    """Read a cluster's numbers back from the host's cable, for a teardown that has lost the state folder."""
    show = ["ip", "-json", "-4", "address", "show", "dev", link_name(cluster)]
    told = subprocess.run(show, capture_output=True, check=False)
    if told.returncode != 0:
        return None
    local = [entry["local"] for link in json.loads(told.stdout) for entry in link.get("addr_info", ())]
    return Addresses(slot=slot_of(local[0])) if local else None


def _ip(*arguments: str, inside: int | None = None) -> None:
    enter = [] if inside is None else ["nsenter", "--target", str(inside), "--net"]
    subprocess.run([*enter, "ip", *arguments], capture_output=True, text=True, check=True)


def _try_ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], capture_output=True, check=False)
