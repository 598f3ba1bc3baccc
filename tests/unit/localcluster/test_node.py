"""A node's first process is a script made from a template: complete, and honest about what it hides."""

import subprocess
from pathlib import Path

import jinja2
import pytest

from localcluster import node, processes, templating

VALUES = {
    "name": "node-1",
    "address": "10.1.0.11",
    "state": "/state/nodes/node-1",
    "logs": "/state/nodes/node-1/logs",
    "peers": [{"pods": "10.1.18.0/24", "address": "10.1.0.12"}],
    "all_pods": "10.1.16.0/20",
    "path": "/cache/bin:/usr/bin:/bin",
    "snapshotter": "overlayfs",
    "pause_image": Path("/cache/pause.tar"),
    "kept_below_var": ["/var/lib/a folder"],
}


def test_the_script_is_valid_shell() -> None:
    script = templating.render("node-init.sh", **VALUES)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_the_script_never_gives_the_node_a_way_out() -> None:
    script = templating.render("node-init.sh", **VALUES)
    assert [line for line in script.splitlines() if "default" in line and line.startswith("ip route")] == [
        "ip route add unreachable default"
    ]


def test_a_folder_below_var_is_bound_back_from_the_machines_own() -> None:
    script = templating.render("node-init.sh", **VALUES)
    assert "mount --rbind '/run/machine-var/lib/a folder' '/var/lib/a folder'" in script


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        templating.render("node-init.sh", name="node-1")


def test_only_paths_below_var_need_to_be_kept() -> None:
    assert node._below_var([Path("/var/cache/x"), Path("/home/me"), Path("/various")]) == ["/var/cache/x"]


def test_a_process_is_known_by_more_than_its_number() -> None:
    mark = processes.this_process()
    assert processes.is_running(mark)
    assert not processes.is_running(mark + "0")
