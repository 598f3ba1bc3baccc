"""How many processes train, and which of them this is. Pure, but for asking torch whether it agrees.

trl and accelerate take a process without torchrun's variables for the only one, and train on with a batch of another
size than was asked for. Here that is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from lora_operator.api.training_run import Parallelism
from lora_operator.protocol.training import Reason
from lora_trainer.result import Refusal

_PER_NODE: Final = "PET_NPROC_PER_NODE"


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """The processes that train together."""

    size: int = 1
    rank: int = 0
    launch: int = 0
    """How many processes this one has to start instead of training itself; 0: none."""

    @property
    def first(self) -> bool:
        """Tell whether this is the process that writes, reports and publishes."""
        return self.rank == 0


def world(parallelism: Parallelism | None, environ: Mapping[str, str]) -> World:
    """Return what the spec asks for, if that is what the environment is; refuse it otherwise."""
    started = "WORLD_SIZE" in environ
    size, rank = _number(environ, "WORLD_SIZE", 1), _number(environ, "RANK", 0)
    wanted = _wanted(parallelism, environ)
    if started:
        if wanted is not None and wanted != size:
            raise Refusal(
                Reason.CONFIG_INVALID,
                f"parallelism: {wanted} processes are asked for, but the launcher started {size} (WORLD_SIZE)",
            )
        return World(size=size, rank=rank)
    if wanted is None or wanted == 1:
        return World()
    nodes = parallelism.nodes if parallelism is not None else _number(environ, "PET_NNODES", 1)
    if nodes > 1 and "PET_NNODES" not in environ:
        raise Refusal(
            Reason.CONFIG_INVALID,
            f"parallelism.nodes: {nodes} nodes are asked for, and nothing says where they are: set PET_NNODES, "
            "PET_NODE_RANK, PET_MASTER_ADDR and PET_MASTER_PORT on each, or start lora-train by torchrun",
        )
    return World(launch=wanted // nodes)


def agree(expected: World, *, initialised: bool, size: int) -> None:
    """Refuse to train alone where several were to train together: `size` is what torch says."""
    found = size if initialised else 1
    if found != expected.size:
        raise Refusal(
            Reason.TRAINING_FAILED,
            f"parallelism: {expected.size} processes were started, but torch trains with {found}",
        )


def _wanted(parallelism: Parallelism | None, environ: Mapping[str, str]) -> int | None:
    if parallelism is not None:
        return parallelism.nodes * parallelism.proc_per_node
    if _PER_NODE in environ:
        return _number(environ, _PER_NODE, 1) * _number(environ, "PET_NNODES", 1)
    return None


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, "")
    if not text:
        return default
    if not text.isdigit():
        raise Refusal(Reason.CONFIG_INVALID, f"{name}={text!r} is no number")
    return int(text)
