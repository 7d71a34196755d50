"""Connect to a broker: one connection with a heartbeat and a deadline, never reconnected automatically.

aio-pika's own robust connection reconnects unseen and leaves the state of publishes under way unknown. Our connection
ends when it is lost; its user learns why, and opens another.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import aio_pika
from aio_pika.exceptions import AMQPError, ConnectionClosed, InvalidFrameError, ProbableAuthenticationError
from pamqp.commands import Connection
from yarl import URL

from outbox.errors import SettingsError
from relay.observe.logging import one_line, redacted

if TYPE_CHECKING:
    from aio_pika.abc import AbstractConnection

    from relay.destinations.rabbitmq.settings import RabbitSettings

HEARTBEAT_S = 10  # a silent broker is given up after three of these: aiormq's rule
CONNECT_TIMEOUT_S = 10.0
LONGEST_REASON = 500
_OBJECT = re.compile(r"<([\w.]+) object at 0x[0-9a-f]+>")

# The errors that a fault of the broker or of the network raises.
TROUBLE = (AMQPError, OSError, TimeoutError, RuntimeError)


@dataclass(frozen=True)
class Broker:
    """A broker, and the certificates to trust.

    Args:
        url: ``amqp://user:password@host/vhost`` or ``amqps://…``; never logged. Its query may hold aiormq's options
            (``heartbeat``, ``certfile``, ``keyfile``).
        ca_file: The certificates to trust for ``amqps://``, instead of the system's.
        name: The name of the connection in the broker's list.
    """

    url: str = field(repr=False)
    ca_file: Path | None = None
    name: str = "outbox"

    @classmethod
    def of(cls, settings: RabbitSettings, name: str) -> Broker:
        return cls(settings.address, settings.ca_file, name)

    def check(self) -> None:
        """Check what could never work.

        Raises:
            SettingsError: The certificates cannot be read, or would not be used.
        """
        if self.ca_file is not None and not self.url.startswith("amqps:"):
            raise SettingsError(f"ca_file is given, but {self} is not encrypted: write amqps:// in the broker's URL")
        for setting, path, load in (("ca_file", self.ca_file, self._trust), ("certfile", self._certfile, self._tls)):
            try:
                load()
            except (OSError, ssl.SSLError) as error:
                raise SettingsError(f"{setting} names {path}, which cannot be used: {error}") from None

    async def connect(
        self, timeout_s: float = CONNECT_TIMEOUT_S, *, connection_class: type[aio_pika.Connection] = aio_pika.Connection
    ) -> AbstractConnection:
        """Open a connection.

        Args:
            timeout_s: How long connecting may take, in seconds.
            connection_class: The class of the connection.

        Raises:
            AMQPError: The broker refuses the connection, or is not a broker.
            OSError: It cannot be reached.
            TimeoutError: It does not answer within ``timeout_s`` seconds.
        """
        given = URL(self.url)
        defaults = {"heartbeat": str(HEARTBEAT_S), "name": self.name}
        url = given.update_query({key: value for key, value in defaults.items() if key not in given.query})
        try:
            async with asyncio.timeout(timeout_s):
                return await aio_pika.connect(url, ssl_context=self._tls(), connection_class=connection_class)
        except InvalidFrameError as error:
            refusal = _refusal(error)
            if refusal is None:
                raise
            raise ConnectionClosed(refusal.reply_code, refusal.reply_text) from None

    def __str__(self) -> str:
        return str(URL(self.url).with_user(None).with_query(None))

    @property
    def _certfile(self) -> str | None:
        return URL(self.url).query.get("certfile")

    def _trust(self) -> ssl.SSLContext | None:
        return None if self.ca_file is None else ssl.create_default_context(cafile=self.ca_file)

    def _tls(self) -> ssl.SSLContext | None:
        """Return a TLS context with our certificate, which aiormq does not add to a context from outside."""
        context = self._trust()
        if context is not None and self._certfile is not None:
            context.load_cert_chain(self._certfile, URL(self.url).query.get("keyfile"))
        return context


def explained(error: BaseException | None) -> str:
    """Return the reason for an error, in one line for people."""
    match error:
        case None:
            text = "closed"
        case asyncio.CancelledError():
            text = "the broker has gone silent: no heartbeat"
        case ProbableAuthenticationError():
            text = f"the broker refuses the login: {_words(error)}"
        case TimeoutError() if not error.args:
            text = "no answer in time"
        case _:
            text = _words(error)
    return one_line(redacted(text))[:LONGEST_REASON]


def _words(error: BaseException) -> str:
    said = " ".join(str(part) for part in error.args if part is not None)
    return _OBJECT.sub(r"\1", said) or type(error).__name__


def _refusal(error: InvalidFrameError) -> Connection.Close | None:
    """Return the broker's reason if it closed the connection while it was opened: the virtual host is refused.

    aiormq expects another frame, and its error contains only the address of this one.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        found = frame.f_locals.get("frame")
        if isinstance(found, Connection.Close):
            return found
    return None
