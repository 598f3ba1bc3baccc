"""Reading a base model that lies in a directory: its config.json, and the headers of its weights, never the weights.

The agent does so beside the engine, `lora-inspect` on a person's machine. Raises OSError where the directory, or a file
in it, can't be read, and ValueError where what is there is no base model.
"""

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .base import Base, base_from_config, base_from_headers
from .header import Header, HeaderError, header_range, parse_header
from .names import base_weights_files

BASE_CONFIG = "config.json"
_CONFIG_LIMIT = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LocalBase:
    """A base model's config, and its shapes: None where they can't be told."""

    config: Mapping[str, object]
    shapes: Base | None


def open_base(path: Path) -> LocalBase:
    """Read the base model in the directory *path*, or the config.json that *path* is: then the shapes come from it."""
    if not path.is_dir():
        config = parse_base_config(_read(path, _CONFIG_LIMIT), where=str(path))
        return LocalBase(config, base_from_config(config))
    config = parse_base_config(_read(path / BASE_CONFIG, _CONFIG_LIMIT), where=str(path / BASE_CONFIG))
    headers = [_header(path / name) for name in base_weights_files(entry.name for entry in path.iterdir())]
    return LocalBase(config, (base_from_headers(headers, config) if headers else None) or base_from_config(config))


def parse_base_config(data: bytes, *, where: str) -> Mapping[str, object]:
    """Decode a base's config.json; ValueError, naming *where* it lies, if it is no JSON object."""
    try:
        config = json.loads(data)
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{where}: not JSON ({type(error).__name__})") from error
    if not isinstance(config, dict):
        raise ValueError(f"{where}: not a JSON object")  # noqa: TRY004 - of the file, not of an argument
    return config


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        _check_regular(path, file.fileno())
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path}: more than {limit} bytes")
    return data


def _header(path: Path) -> Header:
    prefix = b""
    with path.open("rb") as file:
        size = _check_regular(path, file.fileno())
        try:
            while (wanted := header_range(prefix, size)) and (more := file.read(wanted[1] - wanted[0])):
                prefix += more
            return parse_header(prefix, size)
        except HeaderError as error:
            raise ValueError(f"{path}: {error}") from error


def _check_regular(path: Path, descriptor: int) -> int:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path}: not a regular file")
    return found.st_size
