"""The adapter library: decides whether an engine may be given an adapter, from its files alone.

Operator, agent and trainer import it; it imports nothing else of ours, and needs no torch and no network.
"""

from .base import Base, Stored, base_from_config, base_from_headers, base_from_shapes, find_stored
from .base_directory import base_from_directory, read_base_config
from .directory import open_directory
from .engine import DEVICES, DTYPES, EngineLimits
from .files import Adapter, FileFacts, from_config, from_parts
from .findings import Code, Finding, Severity, Summary, Verdict, quotable
from .header import FIRST_GUESS, Header, HeaderError, Tensor, header_range, parse_header, read_header
from .inspection import inspect
from .names import BASE_CONFIG, CONFIG, WEIGHTS, base_weights_files, digest, engine_name, is_hub_id, weights_files

__all__ = [
    "BASE_CONFIG",
    "CONFIG",
    "DEVICES",
    "DTYPES",
    "FIRST_GUESS",
    "WEIGHTS",
    "Adapter",
    "Base",
    "Code",
    "EngineLimits",
    "FileFacts",
    "Finding",
    "Header",
    "HeaderError",
    "Severity",
    "Stored",
    "Summary",
    "Tensor",
    "Verdict",
    "base_from_config",
    "base_from_directory",
    "base_from_headers",
    "base_from_shapes",
    "base_weights_files",
    "digest",
    "engine_name",
    "find_stored",
    "from_config",
    "from_parts",
    "header_range",
    "inspect",
    "is_hub_id",
    "open_directory",
    "parse_header",
    "quotable",
    "read_base_config",
    "read_header",
    "weights_files",
]
