"""Where things lie, and how large they get: what no linter looks at."""

from __future__ import annotations

import operator
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CODE = ("operator", "images", "hack", "tests")
LONGEST_MODULE = 400


def tracked(*patterns: str) -> list[Path]:
    """Return the files of the checkout: what git knows, or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [path for name in listed if (path := ROOT / name).is_file()]


def test_the_operator_folder_does_not_shadow_the_standard_library() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert not Path(operator.__file__).is_relative_to(ROOT / "operator")


def test_every_test_is_where_pytest_looks() -> None:
    strays = [
        str(path.relative_to(ROOT))
        for path in tracked("*.py")
        if not path.is_relative_to(ROOT / "tests")
        and re.search(r"^\s*(async )?def test_", path.read_text(), re.MULTILINE)
    ]
    assert strays == []


def test_a_file_of_tests_has_a_name_that_pytest_collects() -> None:
    strays = [
        str(path.relative_to(ROOT))
        for path in tracked("tests/*.py")
        if not path.name.startswith("test_")
        # What several tiers run is imported by a file that is collected.
        and not path.is_relative_to(ROOT / "tests" / "support")
        and re.search(r"^(async )?def test_", path.read_text(), re.MULTILINE)
    ]
    assert strays == []


def test_no_module_outgrows_a_screenful_of_screens() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in tracked(*(f"{folder}/*.py" for folder in CODE))}
    assert [f"{path.relative_to(ROOT)}: {length}" for path, length in lengths.items() if length > LONGEST_MODULE] == []


@pytest.mark.parametrize("name", ["utils", "util", "helpers", "helper", "common", "manager", "misc"])
def test_no_module_is_named_for_nothing(name: str) -> None:
    assert [str(path) for path in tracked(f"*/{name}.py")] == []


def test_every_package_says_what_it_is() -> None:
    modules = [path for path in tracked(*(f"{folder}/*.py" for folder in CODE)) if path.stat().st_size]
    silent = [str(path.relative_to(ROOT)) for path in modules if not path.read_text().startswith('"""')]
    assert silent == []


def test_no_file_knows_where_it_was_written() -> None:
    # A path of one part, such as /root or /src, is one that any text may have.
    places = [re.escape(str(place)) for place in (ROOT, Path.home()) if len(place.parts) > 2]
    told = re.compile(rf"(?<![\w.-])({'|'.join(places)})(?![\w-])".encode())
    assert [str(path.relative_to(ROOT)) for path in tracked() if places and told.search(path.read_bytes())] == []


@pytest.mark.parametrize("folder", ["crds", "charts/lora-operator/files/crds"])
def test_a_generated_file_names_its_command(folder: str) -> None:
    files = sorted((ROOT / folder).glob("*.yaml"))
    assert len(files) == 3
    assert [path.name for path in files if "`make generate`" not in path.read_text().partition("\n")[0]] == []
