"""The door's TLS: the certificate of the engine's Secret, and one made on the spot until kubelet brings that.

Kubelet's probes don't verify it and come before the Secret may be there; the operator pins the Secret's, so nobody
mistakes the one for the other. A certificate that changes is taken for the connections that follow.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import ssl
from collections.abc import Iterator

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_log = logging.getLogger(__name__)


class ServerTls:
    """One server context whose certificate can be changed while it serves."""

    def __init__(self) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._taken: tuple[bytes, bytes] | None = None

    def take(self, pair: tuple[bytes, bytes] | None) -> None:
        """Serve with this certificate and key from now on; without one, with what there is, or one of our own."""
        if pair is None:
            if self._taken is None:
                self._load(_make())
            return
        if pair == self._taken:
            return
        try:
            self._load(pair)
        except ssl.SSLError as error:
            _log.warning("the Secret's certificate can't be used", extra={"problem": str(error)})
            if self._taken is None:
                self._load(_make())

    def _load(self, pair: tuple[bytes, bytes]) -> None:
        with _file_of(pair[0]) as certificate, _file_of(pair[1]) as key:
            self.context.load_cert_chain(certificate, key)
        self._taken = pair


@contextlib.contextmanager
def _file_of(content: bytes) -> Iterator[str]:
    """Return the path of a file in memory: OpenSSL through Python reads files only, and the disk may be full."""
    with os.fdopen(os.memfd_create("pem"), "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


def _make() -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lora-agent")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(encoding), private
