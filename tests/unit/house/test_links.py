"""A link from one page to another leads somewhere, headings included."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)\s]*)\)")


def pages() -> list[str]:
    """Return the pages of the checkout."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in listed if (ROOT / name).is_file()]


@pytest.mark.parametrize("page", pages())
def test_every_link_leads_somewhere(page: str) -> None:
    broken = [target for target in LINK.findall(prose(ROOT / page)) if not leads(ROOT / page, target)]
    assert broken == []


def leads(page: Path, target: str) -> bool:
    """Tell whether a file is there, and has the heading that a link names."""
    name, _, heading = target.partition("#")
    file = (page.parent / name) if name else page
    if not heading:
        return file.exists()
    return file.is_file() and heading in {slug(line) for line in re.findall(r"^#+ (.*)$", prose(file), re.MULTILINE)}


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def slug(heading: str) -> str:
    """Return the anchor that a heading gets where Markdown is rendered."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
