"""TLS for a client: which certificates it trusts, and which one it presents."""

from __future__ import annotations

import ssl
from pathlib import Path

from relay.destinations.policy import DestinationPolicy


class TlsPolicy(DestinationPolicy):
    """The settings of a destination that can present a client certificate.

    Args:
        ca_file: The certificates to trust, instead of the system's.
        client_cert_file: The client certificate to present.
        client_key_file: Its key, if that is in another file.
    """

    ca_file: Path | None = None
    client_cert_file: Path | None = None
    client_key_file: Path | None = None

    @property
    def needs_tls(self) -> bool:
        """Return whether the connection is encrypted with a context of ours."""
        raise NotImplementedError

    def tls_context(self) -> ssl.SSLContext | None:
        """Return a context with the trusted certificates and the client certificate; ``None`` if no context is needed.

        Raises:
            ValueError: A file cannot be read or has the wrong content, or the connection would not use it.
        """
        if not self.needs_tls:
            if self.ca_file is not None or self.client_cert_file is not None:
                raise ValueError("ca_file or client_cert_file is given, but the connection is not encrypted")
            return None
        try:
            made = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise ValueError(f"ca_file {self.ca_file} cannot be used: {error.strerror or error}") from None
        if self.client_cert_file is not None:
            try:
                made.load_cert_chain(self.client_cert_file, self.client_key_file)
            except OSError as error:
                raise ValueError(
                    f"client_cert_file {self.client_cert_file} cannot be used: {error.strerror or error}"
                ) from None
        return made
