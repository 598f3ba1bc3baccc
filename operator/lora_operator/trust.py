"""Trust what the platform team trusts: the certificates of the chart's `caBundle`, beside the system's own.

They reach operator, agents and trainers alike as one environment variable. Called first thing by each of these
programs, for what speaks TLS looks for its file once, some of it while it is imported.
"""

from __future__ import annotations

import atexit
import os
import ssl
import tempfile
from pathlib import Path
from typing import Final

VARIABLE: Final = "LORA_CA_BUNDLE"


def extend_from_environment() -> None:
    """Make every HTTP client of this process trust the certificates in LORA_CA_BUNDLE too.

    Raises ValueError where the variable holds no certificates.
    """
    given = os.environ.get(VARIABLE, "").strip()
    if not given:
        return
    try:
        ssl.create_default_context(cadata=given)
    except (ssl.SSLError, ValueError, TypeError) as error:
        raise ValueError(f"{VARIABLE} (the chart's caBundle) holds no PEM certificates: {error}") from error
    # OpenSSL takes the named file for everything, so the system's own are in it.
    with tempfile.NamedTemporaryFile("w", prefix="trusted-", suffix=".pem", delete=False) as file:
        file.write(f"{_systems_own()}\n{given}\n")
    atexit.register(Path(file.name).unlink, missing_ok=True)
    os.environ["SSL_CERT_FILE"] = file.name
    os.environ.setdefault("REQUESTS_CA_BUNDLE", file.name)


def _systems_own() -> str:
    """Return the certificates that are trusted without us, from a file or a folder of hashed names."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile is not None:
        return Path(paths.cafile).read_text()
    folder = Path(paths.capath) if paths.capath is not None else Path()
    return "\n".join(path.read_text() for path in sorted(folder.glob("????????.[0-9]")))
