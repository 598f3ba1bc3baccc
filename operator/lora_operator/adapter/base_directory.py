"""Reading a base model from a directory: its config.json, and the headers of its weights.

Links are followed, for a model lies in many ways on a disk; what is behind them has to be a regular file: a pipe would
block its reader for ever, and a device may never end.
"""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from .base import Base, base_from_config, base_from_headers, find_stored
from .header import Header, read_header
from .names import BASE_CONFIG, base_weights_files

# The longest have some 100 kB, of which most says how each module is quantised.
_CONFIG_LIMIT = 4 * 1024 * 1024
# Of which weights PEFT saves copies; the others' headers may be many megabytes of names.
_ENDS = ("embed_tokens.weight", "lm_head.weight")


def base_from_directory(path: str | Path) -> Base | None:
    """Read the base at *path*: config.json and the headers of its safetensors files, not what is behind them.

    Raises OSError or ValueError (`HeaderError` is one) where a file can't be read as what it is.
    """
    folder = Path(path)
    config = read_base_config(folder / BASE_CONFIG)
    ends: dict[Path, Header] = {}
    base = base_from_headers(_headers(folder, ends), config) or base_from_config(config)
    return base and replace(base, stored=find_stored(ends, config))


def read_base_config(path: Path) -> dict[str, object]:
    """Read a base's config.json; raises OSError or ValueError."""
    with open_regular(path) as file:
        data = file.read(_CONFIG_LIMIT + 1)
    if len(data) > _CONFIG_LIMIT:
        raise ValueError(f"{path} has more than {_CONFIG_LIMIT} bytes")
    try:
        config = json.loads(data)
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} is not a JSON object")  # noqa: TRY004 - of the file, not of a type
    return config


def _headers(folder: Path, ends: dict[Path, Header]) -> Iterator[Header]:
    """Yield the header of each file; note in *ends* those with an embedding or a head, and hold on to no other."""
    for name in base_weights_files(path.name for path in folder.iterdir()):
        with open_regular(folder / name) as file:
            header = read_header(file, os.fstat(file.fileno()).st_size)
        if any(tensor.endswith(_ENDS) for tensor in header.tensors):
            ends[folder / name] = header
        yield header


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a file of the base; raises OSError, or ValueError where it is no regular one."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path} is not a regular file")
    # Between the look and the open it may have become something else: wait for no pipe, and look again.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError(f"{path} is not a regular file")
        yield file
