#!/bin/sh
# Every static check; the first that fails ends it.
set -eu
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
ruff check .
ruff format --check .
mypy
lint-imports
codespell
yamllint --strict .
