"""`python -m lora_agent` as kubelet starts it."""

from __future__ import annotations

import asyncio
import json
import sys


async def test_without_its_settings_the_program_ends_and_names_what_is_missing() -> None:
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lora_agent", env={}, stderr=asyncio.subprocess.PIPE
    )
    _, output = await program.communicate()
    assert program.returncode == 64
    (line,) = output.splitlines()
    assert "LORA_AGENT_BASE_MODEL" in json.loads(line)["problem"]
