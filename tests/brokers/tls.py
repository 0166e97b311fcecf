"""A certification authority for one test run: made at run time, gone with the run."""

from __future__ import annotations

import fcntl
import ipaddress
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files of a certificate and its unencrypted key."""

    cert_file: Path
    key_file: Path

    def load(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        key = serialization.load_pem_private_key(self.key_file.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return x509.load_pem_x509_certificate(self.cert_file.read_bytes()), key

    def save(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        plain = serialization.NoEncryption()
        self.key_file.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        )
        self.cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


class Authority:
    """Issues certificates into one folder, once per name; several processes may share the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def ca_file(self) -> Path:
        """The authority's own certificate, PEM."""
        return self._ca().cert_file

    def server(self, *names: str) -> Certificate:
        """A server's certificate for DNS names or addresses; localhost and 127.0.0.1 by default."""
        return self._issue("server", names or ("localhost", "127.0.0.1"), ExtendedKeyUsageOID.SERVER_AUTH)

    def client(self, name: str = "guest") -> Certificate:
        """A client's certificate with the common name `name`."""
        return self._issue("client", (name,), ExtendedKeyUsageOID.CLIENT_AUTH)

    def server_context(self, *names: str) -> ssl.SSLContext:
        """A context for a TLS server of these names; asks no client for a certificate."""
        issued = self.server(*names)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(issued.cert_file, issued.key_file)
        return context

    def client_context(self, client: Certificate | None = None) -> ssl.SSLContext:
        """A verifying context that trusts this authority only."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        if client is not None:
            context.load_cert_chain(client.cert_file, client.key_file)
        return context

    def _ca(self) -> Certificate:
        return self._once("ca", _make_ca)

    def _issue(self, use: str, names: tuple[str, ...], usage: x509.ObjectIdentifier) -> Certificate:
        ca = self._ca()
        return self._once("-".join((use, *names)), lambda target: _make_leaf(target, ca, names, usage))

    def _once(self, name: str, make: Callable[[Certificate], None]) -> Certificate:
        self._folder.mkdir(parents=True, exist_ok=True)
        target = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        with (self._folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.cert_file.exists():
                make(target)
        return target


def _make_ca(target: Certificate) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("mq-gateway test authority")
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        _builder(name, name, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    target.save(builder.sign(key, hashes.SHA256()), key)


def _make_leaf(
    target: Certificate, authority: Certificate, names: tuple[str, ...], usage: x509.ObjectIdentifier
) -> None:
    issuer, issuer_key = authority.load()
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(_name(names[0]), issuer.subject, key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    target.save(builder.sign(issuer_key, hashes.SHA256()), key)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
