"""Run every generator: `python -m generators [--check]`."""

from __future__ import annotations

import sys

from generators import api_docs, chart, crds, protocol
from generators.files import settle, wants_check

if __name__ == "__main__":
    everything = crds.files() | api_docs.files() | chart.files() | protocol.files()
    sys.exit(settle(everything, check=wants_check("Run every generator.")))
