"""Reading pinned, hashed requirement files: one block a package, its hashes on the lines that follow."""

import re
from collections.abc import Mapping
from pathlib import Path

_PIN = re.compile(r"^(?P<name>[a-z0-9][a-z0-9._-]*)(?:\[[^\]]*\])?==(?P<version>[^\s;\\]+)")
# What comes only because PyPI's torch is built for CUDA. triton stays: other packages require it too.
_CUDA = ("nvidia-", "cuda-")


def read(file: Path) -> dict[str, str]:
    """Return each package's whole block, by its name."""
    blocks: dict[str, str] = {}
    name = ""
    for line in file.read_text().splitlines(keepends=True):
        if pin := _PIN.match(line):
            name = pin["name"]
            blocks[name] = line
        elif name and line.startswith((" ", "\t")) and not line.lstrip().startswith("#"):
            blocks[name] += line
    return blocks


def version(pins: Mapping[str, str], name: str) -> str:
    """Return the version that a package is pinned to."""
    pin = _PIN.match(pins[name])
    if pin is None:
        raise ValueError(f"{name} is not pinned to a version")
    return pin["version"]


def without_cuda(pins: Mapping[str, str]) -> str:
    """Return the requirements less torch and the libraries that only its CUDA build needs."""
    return "".join(block for name, block in pins.items() if name != "torch" and not name.startswith(_CUDA))
