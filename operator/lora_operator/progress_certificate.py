"""The certificates behind the progress endpoint: one authority for good, and a certificate issued at every start.

The authority lies in a Secret of the operator's own namespace and reaches trainers with their frozen spec; so neither
a restart of the operator nor another name of its Service makes a running trainer's reports fail.
"""

from __future__ import annotations

import base64
import ipaddress
import ssl
import tempfile
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from kubernetes.aio.client.exceptions import ApiException

from lora_operator import labels
from lora_operator.clients.kube import SECRETS
from lora_operator.world import World

Object = dict[str, Any]

SECRET: Final = "lora-operator-progress"  # noqa: S105 - an object's name
CA_CERT: Final = "ca.crt"
CA_KEY: Final = "ca.key"
LIFE: Final = timedelta(days=3650)
EARLIER: Final = timedelta(days=1)
"""How far a certificate reaches back, for clocks that are behind."""


@dataclass(frozen=True, slots=True)
class Authority:
    """Who signs the endpoint's certificate: PEM."""

    certificate: str
    private_key: str


async def authority(world: World) -> Authority:
    """Read the authority, or make it once; of two operators that start at a time, one makes it and both use it."""
    namespace = world.settings.namespace
    secret = await world.kube.get(SECRETS, namespace, SECRET)
    if secret is None:
        try:
            secret = await world.kube.create(_secret(namespace, new_authority(world.now())))
        except ApiException as error:
            if error.status != 409:
                raise
            secret = await world.kube.get(SECRETS, namespace, SECRET)
    data = (secret or {}).get("data") or {}
    try:
        return Authority(*(base64.b64decode(data[name]).decode() for name in (CA_CERT, CA_KEY)))
    except KeyError as error:
        raise LookupError(f"Secret {namespace}/{SECRET} has no key {error}: delete it, and it is made anew") from error


def new_authority(now: datetime) -> Authority:
    """Make an authority that signs nothing but certificates of servers."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("lora-operator progress")
    certificate = (
        _builder(key, subject=name, issuer=name, now=now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate.public_bytes(Encoding.PEM).decode(), _pem(key))


def server_context(signer: Authority, *, host: str, now: datetime) -> ssl.SSLContext:
    """Issue a certificate for a host and return the context that serves with it."""
    issuer = x509.load_pem_x509_certificate(signer.certificate.encode())
    issuer_key = load_pem_private_key(signer.private_key.encode(), password=None)
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"Secret {SECRET}: {CA_KEY} is no elliptic curve key")
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        _builder(key, subject=_name("lora-operator"), issuer=issuer.subject, now=now)
        .add_extension(x509.SubjectAlternativeName([_san(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        # OpenSSL reads files only; these are gone before anybody can connect.
        chain = Path(folder) / "server.pem"
        chain.touch(mode=0o600)
        chain.write_text(certificate.public_bytes(Encoding.PEM).decode() + _pem(key))
        context.load_cert_chain(chain)
    return context


def _builder(
    key: ec.EllipticCurvePrivateKey, *, subject: x509.Name, issuer: x509.Name, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + LIFE)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _san(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _secret(namespace: str, made: Authority) -> Object:
    data = {CA_CERT: made.certificate, CA_KEY: made.private_key}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET, "namespace": namespace, "labels": {labels.MANAGED_BY: labels.FIELD_MANAGER}},
        "type": "Opaque",
        "data": {name: base64.b64encode(text.encode()).decode() for name, text in data.items()},
    }
