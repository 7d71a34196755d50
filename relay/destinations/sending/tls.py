"""TLS for a client: which certificates it trusts, and which one it presents."""

from __future__ import annotations

import ssl
from pathlib import Path


def context(ca_file: Path | None, cert_file: Path | None, key_file: Path | None) -> ssl.SSLContext:
    """Return the TLS settings.

    Args:
        ca_file: The certificates to trust; ``None``: the system's.
        cert_file: The client certificate to present, if there is one.
        key_file: Its key, if that is in another file.

    Raises:
        ValueError: A file cannot be read, or has the wrong content.
    """
    made = _made(ca_file)
    if cert_file is not None:
        try:
            made.load_cert_chain(cert_file, key_file)
        except OSError as error:
            raise ValueError(f"client_cert_file {cert_file} cannot be used: {error.strerror or error}") from None
    return made


def _made(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ValueError(f"ca_file {ca_file} cannot be used: {error.strerror or error}") from None
