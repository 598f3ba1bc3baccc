"""What a CA bundle does to the environment of a process, and what it does not."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lora_operator import trust
from lora_operator.progress_certificate import new_authority

NOW = datetime.now(UTC)
OURS, THE_SYSTEMS = (new_authority(NOW).certificate for _ in range(2))


@pytest.fixture(autouse=True)
def system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Make a system that trusts one authority, by a file."""
    file = tmp_path / "system.pem"
    file.write_text(THE_SYSTEMS)
    for name in (trust.VARIABLE, "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return file


def trusted() -> set[str]:
    """Return the authorities that a client made now trusts, in PEM."""
    found = ssl.create_default_context().get_ca_certs(binary_form=True)
    return {ssl.DER_cert_to_PEM_cert(der) for der in found}


def test_without_a_bundle_nothing_changes() -> None:
    before = dict(os.environ)
    trust.extend_from_environment()
    assert dict(os.environ) == before
    assert trusted() == {THE_SYSTEMS}


def test_a_bundle_is_trusted_besides_the_systems_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(trust.VARIABLE, f"# of the house\n{OURS}")
    trust.extend_from_environment()
    assert trusted() == {THE_SYSTEMS, OURS}
    assert os.environ["REQUESTS_CA_BUNDLE"] == os.environ["SSL_CERT_FILE"]


def test_a_system_that_keeps_a_folder_stays_trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    folder.mkdir()
    (folder / "0a1b2c3d.0").write_text(THE_SYSTEMS)
    (folder / "README").write_text("not a certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(folder))
    monkeypatch.setenv(trust.VARIABLE, OURS)
    trust.extend_from_environment()
    assert trusted() == {THE_SYSTEMS, OURS}


def test_what_a_person_has_set_for_requests_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/mine.pem")
    monkeypatch.setenv(trust.VARIABLE, OURS)
    trust.extend_from_environment()
    assert os.environ["REQUESTS_CA_BUNDLE"] == "/mine.pem"


@pytest.mark.parametrize(
    "text",
    ["/etc/ssl/ca.pem", OURS.replace("MII", "???"), OURS[:200], "Zertifikat für uns"],
    ids=["a path", "not base64", "cut", "not ASCII"],
)
def test_what_is_no_certificate_is_told(monkeypatch: pytest.MonkeyPatch, system: Path, text: str) -> None:
    monkeypatch.setenv(trust.VARIABLE, text)
    with pytest.raises(ValueError, match="caBundle"):
        trust.extend_from_environment()
    assert os.environ["SSL_CERT_FILE"] == str(system)


def test_a_program_leaves_no_file_of_it_behind(tmp_path: Path) -> None:
    script = "import os, lora_operator.trust as t; t.extend_from_environment(); print(os.environ['SSL_CERT_FILE'])"
    environment = {**os.environ, trust.VARIABLE: OURS, "TMPDIR": str(tmp_path)}
    told = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert Path(told.stdout.strip()).parent == tmp_path
    assert not Path(told.stdout.strip()).exists()
