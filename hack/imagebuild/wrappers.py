"""`.local/engine/bin/{python,vllm,lora-train}`: the heavy environment for this machine, with this checkout's packages.

Small shell files, because each replaces itself by the real program: signals, exit codes and start-up time are its own.
"""

import shlex
from pathlib import Path

from imagebuild import base, engine

PACKAGE_ROOTS = ("operator", "images/agent", "images/merger", "images/trainer", "hack", "tests")
COMMANDS = {
    "python": "/opt/lora/env/bin/python",
    "vllm": "/opt/lora/env/bin/vllm",
    "lora-train": "/opt/lora/env/bin/python -m lora_trainer",
}


def write(checkout: Path = engine.REPOSITORY) -> Path:
    """Write the wrappers of this checkout over the cached environment; return their directory."""
    directory = checkout / ".local/engine/bin"
    directory.mkdir(parents=True, exist_ok=True)
    root, environment = base.ensure(), engine.ensure()
    for name, command in COMMANDS.items():
        wrapper = directory / name
        wrapper.write_text(script(command, checkout=checkout, root=root, environment=environment))
        wrapper.chmod(0o755)
    return directory


def script(command: str, *, checkout: Path, root: Path, environment: Path) -> str:
    """Return the text of one wrapper."""
    packages = ":".join(shlex.quote(str(checkout / name)) for name in PACKAGE_ROOTS)
    enter = shlex.join(["sh", str(checkout / "hack/imagebuild/enter.sh"), str(root), str(environment), "ro"])
    return f"""#!/bin/sh
# Written by `python -m imagebuild engine`.
export LORA_CHECKOUT={shlex.quote(str(checkout))} PYTHONPATH={packages}"${{PYTHONPATH:+:$PYTHONPATH}}"
export VLLM_CACHE_ROOT="${{VLLM_CACHE_ROOT:-{engine.VLLM_CACHE}}}"
exec {enter} {command} "$@"
"""
