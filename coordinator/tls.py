"""TLS that the coordinator ends itself: a certificate and its key from two PEM files."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from cotrain.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_LARGEST_BYTES = 1024 * 1024


@dataclass(frozen=True)
class TlsFiles:
    """Where certificate and key lie."""

    certificate: Path
    """PEM: the server's own certificate first, then those between it and the authority."""
    key: Path
    """PEM, without a password."""


def tls_files(certificate: Path | None, key: Path | None) -> TlsFiles | None:
    """Both files, or None where neither is named. Raises ConfigError that names the one that is missing."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        missing = "--tls-certificate" if certificate is None else "--tls-key"
        raise ConfigError("is missing", field=missing, hint="TLS needs a certificate and its key")
    return TlsFiles(certificate, key)


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """A server's context, TLS 1.2 or newer. Raises ConfigError that names the file and what is wrong with it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_certificate(context, files)
    return context


def load_certificate(context: ssl.SSLContext, files: TlsFiles) -> None:
    """What the files hold is for connections from now on. Raises ConfigError."""
    check_files(files, now=datetime.now(UTC))
    try:
        context.load_cert_chain(files.certificate, files.key)
    except (OSError, ssl.SSLError) as error:  # what only OpenSSL finds: a weak key, a broken chain
        raise ConfigError(f"cannot be used: {error}", field=str(files.certificate)) from error


def check_files(files: TlsFiles, *, now: datetime) -> None:
    """Raises ConfigError unless the certificate holds at this time and the key is its own."""
    certificate = _read_certificate(files.certificate)
    if not certificate.not_valid_before_utc <= now:
        raise ConfigError(
            f"holds from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on only", field=str(files.certificate),
            hint="is this machine's clock right?",
        )  # fmt: skip
    if not now < certificate.not_valid_after_utc:
        raise ConfigError(
            f"has expired on {certificate.not_valid_after_utc:%Y-%m-%d}", field=str(files.certificate),
            hint="renew the certificate",
        )  # fmt: skip
    if _read_key(files.key).public_key() != certificate.public_key():
        raise ConfigError(
            f"is not the key of the first certificate in {files.certificate}", field=str(files.key),
            hint="the server's own certificate stands first in its file",
        )  # fmt: skip


def _read_certificate(path: Path) -> Certificate:
    from cryptography.x509 import load_pem_x509_certificates  # not for a start behind a proxy

    content = _read(path)
    try:
        return load_pem_x509_certificates(content)[0]
    except ValueError as error:
        raise ConfigError(
            "holds no certificate in PEM form", field=str(path), hint="it begins with -----BEGIN CERTIFICATE-----"
        ) from error


def _read_key(path: Path) -> PrivateKeyTypes:
    content = _read(path)
    try:
        return serialization.load_pem_private_key(content, password=None)
    except TypeError as error:
        raise ConfigError(
            "is encrypted with a password", field=str(path), hint="openssl pkey -in FILE -out NEWFILE takes it off"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            "holds no private key in PEM form", field=str(path), hint="it begins with -----BEGIN PRIVATE KEY-----"
        ) from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", field=str(path)) from error
    if len(content) > _LARGEST_BYTES:
        raise ConfigError(f"has more than {_LARGEST_BYTES} bytes", field=str(path), hint="is this the right file?")
    return content
