"""The engine's Secret: the door's token and certificate, and copies of the Hub tokens that its entries need.

The only module of this pass that makes keys; what is in the Secret already stays.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from lora_operator.api import LoRAEngine
from lora_operator.lora_engine.manifests import ENGINE_API_KEY, beside
from lora_operator.protocol.door import CERT_KEY, CREDENTIAL_PREFIX, PRIVATE_KEY_KEY, TOKEN_KEY, secret_name
from lora_operator.protocol.manifest import Entry

Object = dict[str, Any]

CERTIFICATE_LIFE: Final = timedelta(days=3650)
_KEY_USAGE: Final = x509.KeyUsage(
    digital_signature=True,
    key_cert_sign=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
"""What Python's strict verification asks of a certificate that vouches for itself."""
_DOOR_KEYS: Final = frozenset({TOKEN_KEY, CERT_KEY, PRIVATE_KEY_KEY})
_OURS: Final = _DOOR_KEYS | {ENGINE_API_KEY}


def next_data(
    before: Mapping[str, str],
    entries: Iterable[Entry],
    *,
    tokens: Mapping[str, str],
    api_key: str | None,
    now: datetime,
) -> dict[str, str]:
    """Return what the Secret is to hold; `before` is what it holds, decoded."""
    needed = {entry.hub.credential for entry in entries if entry.hub.credential}
    known = {key: tokens.get(key) or before.get(key) for key in needed}
    data = {key: value for key, value in known.items() if value}
    if api_key:
        data[ENGINE_API_KEY] = api_key
    door = {key: before[key] for key in _DOOR_KEYS if before.get(key)}
    return data | (door if door.keys() == _DOOR_KEYS else new_door(now))


def new_door(now: datetime) -> dict[str, str]:
    """Make a token, and a certificate that the operator pins: nobody looks at its name."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lora-agent")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + CERTIFICATE_LIFE)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("lora-agent")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_KEY_USAGE, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return {
        TOKEN_KEY: secrets.token_urlsafe(32),
        CERT_KEY: certificate.public_bytes(Encoding.PEM).decode(),
        PRIVATE_KEY_KEY: private.decode(),
    }


def decoded(secret: Object | None) -> dict[str, str]:
    """Return what of a Secret is ours, as text."""
    data = (secret or {}).get("data") or {}
    ours = {key: value for key, value in data.items() if key in _OURS or key.startswith(CREDENTIAL_PREFIX)}
    return {key: base64.b64decode(value).decode(errors="replace") for key, value in ours.items()}


def secret_object(engine: LoRAEngine, data: Mapping[str, str]) -> Object:
    """Return the Secret's object."""
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in sorted(data.items())}
    return beside(engine, "Secret", secret_name(engine.metadata.name)) | {"type": "Opaque", "data": encoded}
