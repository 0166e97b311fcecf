"""The certificate of the gateway's own HTTPS, read from its files as a whole or not at all."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from app.config.server_tls import ServerTlsSettings

logger = logging.getLogger("mq_gateway.tls")

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_CERT = "server.tls.cert_file"
_KEY = "server.tls.key_file"


class CertificateError(Exception):
    """The files cannot be used; `option` names the one to look at. Nothing of what is in them is said."""

    def __init__(self, option: str, reason: str) -> None:
        super().__init__(f"{option}: {reason}")
        self.option = option
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Certificate:
    """A pair that fits: what new connections are served with, and when it ends (Unix time)."""

    context: ssl.SSLContext
    not_after: float


def load(settings: ServerTlsSettings) -> Certificate:
    """The pair that is in the files now; raises CertificateError."""
    if settings.cert_file is None or settings.key_file is None:
        raise CertificateError(_CERT, "is not set")
    leaf = _leaf(settings.cert_file)
    _check_readable(settings.key_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.min_version]
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(settings.cert_file, settings.key_file, password=_refuse_passphrase)
    except ssl.SSLError as error:
        raise _misfit(error) from None
    except OSError as error:
        raise CertificateError(_CERT, f"cannot be read: {error.strerror or error}") from None
    if leaf.not_valid_after_utc <= datetime.now(UTC):  # for clients to refuse
        logger.warning("%s: the certificate ended at %s", _CERT, leaf.not_valid_after_utc.isoformat())
    return Certificate(context, leaf.not_valid_after_utc.timestamp())


def _leaf(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0]
    except OSError as error:
        raise CertificateError(_CERT, f"cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise CertificateError(_CERT, "holds no PEM certificate that can be read") from None


def _check_readable(path: Path) -> None:
    """So that the one option is named whose file it is: what reads the pair does not tell."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise CertificateError(_KEY, f"cannot be read: {error.strerror or error}") from None


def _refuse_passphrase() -> str:
    """Asked for where the key is encrypted; without this OpenSSL would ask at the terminal, and everything waits."""
    raise CertificateError(_KEY, "the key has a pass phrase, which nobody is there to type: store it without one")


def _misfit(error: ssl.SSLError) -> CertificateError:
    """In words; OpenSSL's reason is one of its constants and holds nothing of the files."""
    if error.reason == "KEY_VALUES_MISMATCH":
        return CertificateError(_KEY, "is not the key of the certificate in server.tls.cert_file")
    if error.reason is not None and "TOO_" in error.reason:
        return CertificateError(_CERT, f"OpenSSL refuses the pair: {error.reason}")
    # That there is a certificate has been seen.
    return CertificateError(_KEY, "holds no PEM key that can be read")
