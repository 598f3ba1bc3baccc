"""`python -m lora_agent`: reads the settings, sets up logging, serves until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from lora_agent import logs
from lora_agent.app import serve
from lora_agent.settings import Settings
from lora_operator import trust

_log = logging.getLogger("lora_agent")


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serve(settings) as agent:
        _log.info("the door is open", extra={"port": agent.port})
        await stop.wait()


def main() -> int:
    """Run the agent; 64 where its environment is not as it should be."""
    logs.set_up()
    try:
        trust.extend_from_environment()
        settings = Settings.from_environment(os.environ)
    except ValueError as error:
        _log.error("the settings can't be read", extra={"problem": str(error)})
        return 64
    asyncio.run(_run(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
