"""The SSLContext of a link: TLS 1.2 or newer, verified unless the administrator says otherwise."""

from __future__ import annotations

import ssl

from app.config.settings import TlsSettings


def client_context(settings: TlsSettings) -> ssl.SSLContext:
    """Context for connecting to a broker; raises OSError or ssl.SSLError where a file cannot be used."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=settings.ca_file, capath=settings.ca_path)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.cert_file is not None:
        context.load_cert_chain(settings.cert_file, settings.key_file, password=_no_passphrase)
    return context


def _no_passphrase() -> str:
    """Makes an encrypted key an error; without this OpenSSL would ask at the terminal, and everything waits."""
    return ""
