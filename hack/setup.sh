#!/bin/sh
# The light environment: .venv with the pinned, hashed packages of constraints/dev.txt and this checkout.
set -eu
cd "$(dirname "$0")/.."
for candidate in python3.11 python3.12 python3.13 python3; do
  if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    python=$candidate
    break
  fi
done
: "${python:?Python 3.11 or newer is needed}"
echo "setting up .venv with $("$python" --version) (about 20 s the first time)"
if [ ! -x .venv/bin/uv ]; then
  # Debian's python3 comes without what makes an environment.
  if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    package="$(basename "$(readlink -f "$(command -v "$python")")")-venv"
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
      echo "install $package first (apt-get install $package): $python can't make an environment" >&2
      exit 69
    fi
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$package" >/dev/null
  fi
  "$python" -m venv .venv
  uv_pin=$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' constraints/dev.txt)
  .venv/bin/python -m pip install --quiet --disable-pip-version-check "$uv_pin"
fi
VIRTUAL_ENV=$PWD/.venv .venv/bin/uv pip sync --quiet --require-hashes constraints/dev.txt
VIRTUAL_ENV=$PWD/.venv .venv/bin/uv pip install --quiet --no-deps --editable .
touch .venv/.set-up
