"""What the engine allows, read from its Deployment's flags by whoever calls; None where that could not be read."""

import re
from dataclasses import dataclass
from typing import Literal

from .config import LoraConfig
from .findings import KNOWN_ENGINES, NEWEST_ENGINE, OLDEST_ENGINE, Code, Findings

# What vLLM takes for --max-lora-rank.
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_VERSION = re.compile(r"v?(\d{1,4})\.(\d{1,4})")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """The limits of one engine; *dtype* as in vLLM's --dtype, e.g. bfloat16."""

    max_lora_rank: int | None = None
    device: Literal["cpu", "cuda"] | None = None
    dtype: str | None = None
    type: str = "VLLM"
    version: str | None = None


def check_engine(engine: EngineLimits, findings: Findings) -> None:
    """Report an engine whose rules we don't know."""
    if engine.type != "VLLM":
        findings.error(
            Code.UNKNOWN_ENGINE, "engine type", found=engine.type, expected="VLLM", fix="serve it on a vLLM engine"
        )
    if engine.version is None:
        return
    version = _VERSION.match(engine.version)
    if version is None or not OLDEST_ENGINE <= (int(version[1]), int(version[2])) <= NEWEST_ENGINE:
        findings.warning(
            Code.UNKNOWN_ENGINE,
            "engine version",
            found=engine.version,
            expected=KNOWN_ENGINES,
            fix="check that the adapter answers as it should: the rules were read from other versions",
        )


def check_rank(engine: EngineLimits, config: LoraConfig, findings: Findings) -> None:
    """Report a rank above the engine's, whether or not a module has it."""
    where, rank = config.highest_rank()
    if engine.max_lora_rank is None:
        findings.warning(
            Code.NOT_CHECKED,
            "--max-lora-rank",
            found="unknown",
            expected=f"at least {rank}",
            fix="set it on the engine, or in the LoRAEngine's flags",
        )
    elif rank > engine.max_lora_rank:
        findings.error(
            Code.RANK_TOO_HIGH,
            where,
            found=rank,
            expected=f"at most {engine.max_lora_rank} (--max-lora-rank)",
            fix=_rank_fix(rank),
        )


def _rank_fix(rank: int) -> str:
    enough = next((allowed for allowed in _RANKS if allowed >= rank), None)
    raise_limit = f", or start the engine with --max-lora-rank {enough}" if enough else ""
    return f"train with a lower rank{raise_limit}"
