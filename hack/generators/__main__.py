"""Run every generator: `python -m generators [--check]`."""

from __future__ import annotations

import sys

from generators import api_docs, chart, crds
from generators.files import settle, wants_check

if __name__ == "__main__":
    sys.exit(settle(crds.files() | api_docs.files() | chart.files(), check=wants_check("Run every generator.")))
