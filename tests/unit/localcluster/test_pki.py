"""The cluster's certificates say who somebody is, and its authority vouches for it."""

from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from localcluster import pki


def test_a_certificate_names_user_groups_and_hosts_and_is_signed_by_the_authority(tmp_path: Path) -> None:
    authority = pki.create(tmp_path / "pki")
    issued = authority.issue("node", user="system:node:n", groups=["system:nodes"], hosts=["10.1.2.3", "n"])
    certificate = x509.load_pem_x509_certificate(issued.certificate.read_bytes())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate.read_bytes()))
    subject = certificate.subject
    assert [entry.value for entry in subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["system:node:n"]
    assert [entry.value for entry in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)] == ["system:nodes"]
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.1.2.3"]
    assert names.get_values_for_type(x509.DNSName) == ["n"]


def test_keys_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    authority = pki.create(tmp_path / "pki")
    issued = authority.issue("admin", user="admin")
    assert {path.stat().st_mode & 0o777 for path in (issued.key, authority.service_account_key)} == {0o600}
