"""What a person reads about the findings, held to the code."""

import hashlib
import re
import subprocess
from pathlib import Path

from lora_operator.adapter import CONFIG, WEIGHTS, Code
from support.adapters import make_adapter

PAGE = Path(__file__).parents[3] / "docs" / "adapters.md"


def test_each_code_has_its_row() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(code.value for code in Code)


def test_the_digest_is_what_the_pages_command_prints(tmp_path: Path) -> None:
    files = make_adapter()
    output = subprocess.run(["sha256sum", CONFIG, WEIGHTS], cwd=files.write(tmp_path), capture_output=True, check=True)
    assert files.digest == f"sha256:{hashlib.sha256(output.stdout).hexdigest()}"
