"""An adapter as data: its config, its files' facts and headers, and what a full read has found in the values.

Made by `directory.open_directory`, by `from_parts` (what range requests and the Hub's metadata bring), or by
`from_config` (before training, when there are no tensors yet). `inspection.inspect` judges it without any I/O.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .findings import Code, Finding, Findings
from .foreign import explain_file
from .header import Header, HeaderError, parse_header
from .names import CONFIG, PICKLES, WEIGHTS, digest, is_weights, stray_weights, weights_files
from .shard_index import check_index

_SAVE_SAFELY = "save the adapter with safe_serialization=True; a pickle is never opened"

Level = Literal["config", "header", "full"]


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file's size and, where it is known, its sha256 in hex."""

    size: int
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """Everything the rules look at. *level* says how much was read."""

    level: Level
    config_bytes: bytes | None
    files: Mapping[str, FileFacts] = field(default_factory=dict)
    headers: Mapping[str, Header] = field(default_factory=dict)
    # Full level: the largest magnitude in each tensor; infinite where a value is not finite.
    magnitudes: Mapping[str, float] = field(default_factory=dict)
    # Full level, beside a base's weights: whether each copy of an embedding of the base has the base's own values.
    copies: Mapping[str, bool] = field(default_factory=dict)
    problems: tuple[Finding, ...] = ()
    # The index of weights in several files, where there is one.
    index_bytes: bytes | None = None

    @property
    def digest(self) -> str | None:
        """The adapter's digest, where the sha256 of each of its files is known."""
        hashes = {name: self.files[name].sha256 for name in weights_files(self.files)}
        known = {name: sha256 for name, sha256 in hashes.items() if sha256}
        if len(known) < len(hashes) or CONFIG not in known or not any(is_weights(name) for name in known):
            return None
        return digest(known)

    @property
    def size_bytes(self) -> int:
        """The bytes of the files that make up the adapter."""
        return sum(self.files[name].size for name in weights_files(self.files))


def from_config(config_bytes: bytes) -> Adapter:
    """Make an adapter of which only the config exists yet."""
    return Adapter(level="config", config_bytes=config_bytes)


def from_parts(
    config_bytes: bytes | None,
    *,
    files: Mapping[str, FileFacts],
    headers: Mapping[str, bytes | Header],
    index_bytes: bytes | None = None,
) -> Adapter:
    """Make an adapter from what was read of a remote one.

    *files* may list all of the repository's files; *headers* has for each weights file its start, with the whole
    header in it, or the header already parsed.
    """
    findings = Findings()
    facts = dict(files)
    if config_bytes is not None:
        known = facts.get(CONFIG, FileFacts(len(config_bytes)))
        facts[CONFIG] = FileFacts(len(config_bytes), hashlib.sha256(config_bytes).hexdigest())
        check_digest(CONFIG, facts[CONFIG].sha256, known.sha256, findings)
    parsed: dict[str, Header] = {}
    for name, header in headers.items():
        if isinstance(header, Header):
            parsed[name] = header
        elif name in facts:
            try:
                parsed[name] = parse_header(header, facts[name].size)
            except HeaderError as error:
                report_header(name, error, findings)
    return Adapter(
        level="header",
        config_bytes=config_bytes,
        files=facts,
        headers=parsed,
        problems=findings.all(),
        index_bytes=index_bytes,
    )


def check_digest(name: str, found: str | None, expected: str | None, findings: Findings) -> None:
    """Report a file whose content is not the one that was asked for."""
    if expected is not None and found != expected:
        findings.error(
            Code.DIGEST_MISMATCH,
            name,
            found=f"sha256 {found}",
            expected=f"sha256 {expected}",
            fix="fetch it again; if that does not help, it was changed after it was pinned: publish it again",
        )


def report_header(name: str, error: HeaderError, findings: Findings) -> None:
    """Report a weights file without a readable header."""
    findings.error(error.code, name, found=str(error), expected="a whole safetensors file", fix=error.fix)


def check_files(adapter: Adapter, findings: Findings) -> None:
    """Report files that are missing, or of a kind that neither vLLM nor PEFT loads safely."""
    if adapter.config_bytes is None and not _reported(adapter, CONFIG):
        findings.error(
            Code.MISSING_CONFIG,
            CONFIG,
            found="missing",
            expected="a file at the top of the repository",
            fix="save the adapter with PEFT's save_pretrained",
        )
    if adapter.level == "config":
        return
    weights = [name for name in weights_files(adapter.files) if is_weights(name)]
    if weights and WEIGHTS not in weights:
        findings.error(
            Code.SHARDED_WEIGHTS,
            WEIGHTS,
            found=f"{len(weights)} shards",
            expected="one file (vLLM and PEFT load no more)",
            fix="save the adapter into one file",
        )
    # Beside the one file, vLLM and PEFT never look at it.
    if adapter.index_bytes is not None and WEIGHTS not in weights:
        check_index(adapter.index_bytes, adapter.headers, findings)
    if not weights and not _reported(adapter, WEIGHTS):
        pickles = [name for name in PICKLES if name in adapter.files]
        stray = stray_weights(adapter.files)
        present = [*stray, *pickles]
        findings.error(
            Code.PICKLE_ONLY if pickles else Code.MISSING_FILE,
            WEIGHTS,
            found=f"missing, but there is {present[0]}" if present else "missing",
            expected="the weights as safetensors, under this name",
            fix=explain_file(stray[0]) if stray else _SAVE_SAFELY,
        )
    for name in weights:
        if name not in adapter.headers and not _reported(adapter, name):
            findings.error(
                Code.MISSING_FILE, name, found="not read", expected="its header", fix="read the start of the file"
            )


def _reported(adapter: Adapter, name: str) -> bool:
    return any(finding.field == name for finding in adapter.problems)
