"""The engine's Secret as kubelet mounts it: the door's token and certificate, and copies of Hub tokens.

It may not be there yet, and it changes under us: read anew at every poll, never logged.
"""

from __future__ import annotations

import hmac
from pathlib import Path

from lora_operator.protocol import door


class Secret:
    """The last that was read of the mounted Secret."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._values: dict[str, bytes] = {}
        self.poll()

    def poll(self) -> bool:
        """Read it anew; tells whether something changed."""
        values: dict[str, bytes] = {}
        try:
            for file in self._path.iterdir():
                if not file.name.startswith(".") and file.is_file():
                    values[file.name] = file.read_bytes()
        except OSError:
            # Not mounted, or swapped while we read: what we have is good until the next poll.
            return False
        changed = values != self._values
        self._values = values
        return changed

    @property
    def credentials(self) -> frozenset[str]:
        """The keys of the Hub tokens that are here."""
        return frozenset(key for key in self._values if key.startswith(door.CREDENTIAL_PREFIX))

    def hub_token(self, key: str | None) -> str | None:
        """Return a Hub token by its key."""
        value = self._values.get(key) if key in self.credentials and key is not None else None
        return value.decode(errors="replace").strip() if value is not None else None

    @property
    def certificate(self) -> tuple[bytes, bytes] | None:
        """The door's certificate and its private key, in PEM."""
        certificate, key = self._values.get(door.CERT_KEY), self._values.get(door.PRIVATE_KEY_KEY)
        return (certificate, key) if certificate and key else None

    def admits(self, token: str) -> bool:
        """Tell whether this is the door's token; without one nobody is admitted."""
        expected = self._values.get(door.TOKEN_KEY, b"").strip()
        return bool(expected) and hmac.compare_digest(expected, token.encode())
