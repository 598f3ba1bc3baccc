"""What lies in the repository is what the generators write."""

from __future__ import annotations

from pathlib import Path

import pytest

from generators import api_docs, chart, crds, files
from generators.files import settle


@pytest.mark.parametrize("generated", [crds.files, api_docs.files, chart.files], ids=["crds", "docs", "chart"])
def test_nothing_generated_is_out_of_date(generated: object) -> None:
    assert callable(generated)
    assert settle(generated(), check=True) == 0


def test_a_check_names_what_is_out_of_date_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(files, "ROOT", tmp_path)
    old, missing = tmp_path / "old.yaml", tmp_path / "missing.yaml"
    old.write_text("before")
    assert settle({old: "after", missing: "new"}, check=True) == 1
    assert "out of date: old.yaml" in capsys.readouterr().out
    assert (old.read_text(), missing.exists()) == ("before", False)
    assert settle({old: "after", missing: "new"}, check=False) == 0
    assert (old.read_text(), missing.read_text()) == ("after", "new")
