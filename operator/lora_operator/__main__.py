"""The entry point: read the settings, set up logging, hand over to kopf."""

from __future__ import annotations

import sys

import kopf

from lora_operator import logs, trust
from lora_operator.handlers import registry
from lora_operator.program import Program
from lora_operator.settings import Settings


def main() -> int:
    """Run the operator until it is told to stop."""
    try:
        trust.extend_from_environment()
        settings = Settings.from_environment()
    except ValueError as error:
        print(error, file=sys.stderr)  # noqa: T201 - logging needs the settings first
        return 64
    logs.set_up(settings.log_level)
    program = Program(settings)
    kopf.run(
        registry=registry(program.watching, start=program.start, stop=program.stop),
        standalone=True,
        # kopf would ask who the user is, and a numeric user in a container has no name.
        identity="lora-operator",  # type: ignore[arg-type]  # a NewType that kopf keeps private
        clusterwide=not settings.watch_namespaces,
        namespaces=settings.watch_namespaces,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
