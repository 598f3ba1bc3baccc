"""What the engine allows, read from its Deployment's flags by whoever calls; None where that could not be read."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, get_args

from .config import LoraConfig
from .findings import KNOWN_ENGINES, NEWEST_ENGINE, OLDEST_ENGINE, Code, Findings
from .names import JOINED

Device = Literal["cpu", "cuda"]
DEVICES: Final[tuple[Device, ...]] = get_args(Device)
# What vLLM takes for --dtype.
DTYPES: Final = ("auto", "half", "float16", "bfloat16", "float", "float32")
# What vLLM takes for --max-lora-rank.
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_VERSION = re.compile(r"v?(\d{1,4})\.(\d{1,4})")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """The limits of one engine; *dtype* as in vLLM's --dtype, e.g. bfloat16.

    *lora_dtype* and *target_modules* are --lora-dtype and --lora-target-modules, where they are given.
    """

    max_lora_rank: int | None = None
    device: Device | None = None
    dtype: str | None = None
    type: str = "VLLM"
    version: str | None = None
    lora_dtype: str | None = None
    target_modules: tuple[str, ...] | None = None

    @property
    def casts_to_half(self) -> bool:
        """Whether the adapter's tensors become float16, which ends at 65,504."""
        dtype = self.dtype if self.lora_dtype in (None, "auto") else self.lora_dtype
        return dtype in ("float16", "half")


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


def check_modules(engine: EngineLimits, modules: Iterable[str], findings: Findings) -> None:
    """Report modules that the engine's own list leaves out: it loads their tensors, and drops them without a word."""
    if engine.target_modules is None:
        return
    allowed = frozenset(engine.target_modules)
    for module in modules:
        if not _is_allowed(module, allowed):
            findings.error(
                Code.MODULE_NOT_SERVED,
                module,
                found="a LoRA on it",
                expected=f"a module of --lora-target-modules ({', '.join(sorted(allowed))})",
                fix="add it to the engine's --lora-target-modules, or train without it",
            )


def _is_allowed(module: str, allowed: frozenset[str]) -> bool:
    """Match as vLLM does, which has q_proj, k_proj and v_proj in one module: it has a LoRA if one of them may."""
    stem, dot, name = module.rpartition(".")
    joined, parts = next((item for item in JOINED.items() if name in (item[0], *item[1])), (name, ()))
    return not allowed.isdisjoint({module, f"{stem}{dot}{joined}", joined, *parts})


def _rank_fix(rank: int) -> str:
    enough = next((allowed for allowed in _RANKS if allowed >= rank), None)
    raise_limit = f", or start the engine with --max-lora-rank {enough}" if enough else ""
    return f"train with a lower rank{raise_limit}"
