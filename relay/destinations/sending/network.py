"""What all destinations over a network have: a deadline, and TLS with the certificates to trust and to present."""

from __future__ import annotations

import ssl
from pathlib import Path

from pydantic import Field

from relay.destinations.policy import DestinationPolicy
from relay.platform.units.durations import Seconds


class NetworkPolicy(DestinationPolicy):
    """The settings of a destination over a network, which can present a client certificate.

    Args:
        timeout_s: The deadline of one attempt, in seconds. There must be one: an answer may never come.
        ca_file: The certificates to trust, instead of the system's.
        client_cert_file: The client certificate to present.
        client_key_file: Its key, if that is in another file.
    """

    timeout_s: Seconds = Field(default=10.0, gt=0, le=3600)
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
