"""The context of a TLS link."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.config.settings import TlsSettings
from app.connectors.stomp.tls import client_context


def _files(folder: Path, encryption: serialization.KeySerializationEncryption) -> tuple[Path, Path]:
    """A certificate signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker.example")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return _files(tmp_path, serialization.NoEncryption())


def test_the_broker_is_verified_and_old_versions_are_refused() -> None:
    context = client_context(TlsSettings())
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.get_ca_certs() == ssl.create_default_context().get_ca_certs()


def test_only_the_given_authority_is_trusted(files: tuple[Path, Path]) -> None:
    context = client_context(TlsSettings(ca_file=files[0]))
    assert [authority["serialNumber"] for authority in context.get_ca_certs()] == ["07"]


def test_a_folder_of_authorities_takes_the_place_of_the_systems(tmp_path: Path) -> None:
    assert client_context(TlsSettings(ca_path=tmp_path)).get_ca_certs() == []


def test_verification_can_be_switched_off_for_tests() -> None:
    context = client_context(TlsSettings(verify=False))
    assert context.verify_mode is ssl.CERT_NONE
    assert not context.check_hostname


def test_our_own_certificate_is_loaded(files: tuple[Path, Path]) -> None:
    certificate, key = files
    client_context(TlsSettings(cert_file=certificate, key_file=key))
    both = certificate.with_name("both.pem")
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    client_context(TlsSettings(cert_file=both))


def test_a_key_of_another_certificate_is_an_error(files: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    _, wrong = _files(other, serialization.NoEncryption())
    with pytest.raises(ssl.SSLError):
        client_context(TlsSettings(cert_file=files[0], key_file=wrong))


def test_an_encrypted_key_is_an_error_and_nobody_is_asked(tmp_path: Path) -> None:
    certificate, key = _files(tmp_path, serialization.BestAvailableEncryption(b"passphrase"))
    with pytest.raises(ssl.SSLError):
        client_context(TlsSettings(cert_file=certificate, key_file=key))


def test_a_file_that_is_gone_is_an_os_error(files: tuple[Path, Path]) -> None:
    settings = TlsSettings(cert_file=files[0], key_file=files[1])
    files[1].unlink()
    with pytest.raises(OSError, match="No such file"):
        client_context(settings)
