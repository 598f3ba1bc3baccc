"""The last step of every generator: write the files, or with --check tell which ones are out of date."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]


def wants_check(description: str) -> bool:
    """Read the command line: True where files are only to be compared."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file is out of date")
    return bool(parser.parse_args().check)


def settle(files: Mapping[Path, str], *, check: bool) -> int:
    """Write what differs, or only name it. Return the exit status."""
    stale = [path for path, text in files.items() if not path.is_file() or path.read_text() != text]
    for path in stale:
        print(f"{'out of date' if check else 'written'}: {path.relative_to(ROOT)}")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path])
    if check and stale:
        print("run `make generate`")
    return 1 if check and stale else 0
