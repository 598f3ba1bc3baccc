"""lora-agent: holds the adapters of one engine pod. Runs beside the engine as a native sidecar.

`serve` is the whole agent as a context manager, `Settings` what it needs to know; `python -m lora_agent` runs one.
"""

from lora_agent.app import Agent, serve
from lora_agent.settings import Settings

__all__ = ["Agent", "Settings", "serve"]
