"""The kinds, as pydantic models: the one source of the CRDs, and what the passes read and write.

Each is parsed with `LoRAAdapter.model_validate(obj)`; fields of a newer CRD are passed over.
"""

from __future__ import annotations

from typing import Final

from lora_operator.api.lora_adapter import LoRAAdapter
from lora_operator.api.lora_engine import LoRAEngine
from lora_operator.api.lora_training_job import LoRATrainingJob
from lora_operator.api.meta import Object

KINDS: Final[tuple[type[Object], ...]] = (LoRAEngine, LoRAAdapter, LoRATrainingJob)

__all__ = ["KINDS", "LoRAAdapter", "LoRAEngine", "LoRATrainingJob", "Object"]
