"""Connect to a broker: one connection with a heartbeat and a deadline, never reconnected automatically.

aio-pika's own robust connection reconnects unnoticed, and leaves it unknown what became of publishes under way. Our
connection ends when it is lost; its user learns why, and opens another.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import traceback
from dataclasses import dataclass, field
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
    """A broker, and the certificates for its connection.

    Args:
        url: ``amqp://user:password@host/vhost`` or ``amqps://…``; never logged. Its query may hold aiormq's option
            ``heartbeat``.
        tls: The certificates to trust, and the one to present; ``None``: as the library does by default.
        name: The name of the connection in the broker's list.
    """

    url: str = field(repr=False)
    tls: ssl.SSLContext | None = None
    name: str = "outbox"

    @classmethod
    def of(cls, settings: RabbitSettings, name: str) -> Broker:
        """Return the broker of a destination.

        Raises:
            SettingsError: The certificates cannot be read, or would not be used.
        """
        try:
            return cls(settings.address, settings.tls_context(), name)
        except ValueError as error:
            raise SettingsError(str(error)) from None

    async def connect(
        self, timeout_s: float = CONNECT_TIMEOUT_S, *, connection_class: type[aio_pika.Connection] = aio_pika.Connection
    ) -> AbstractConnection:
        """Open a connection.

        Args:
            timeout_s: How long connecting may take, in seconds.
            connection_class: The class of the connection.

        Raises:
            AMQPError: The broker refuses the connection, or the server is not a broker.
            OSError: It cannot be reached.
            TimeoutError: It does not answer within ``timeout_s`` seconds.
        """
        given = URL(self.url)
        defaults = {"heartbeat": str(HEARTBEAT_S), "name": self.name}
        url = given.update_query({key: value for key, value in defaults.items() if key not in given.query})
        try:
            async with asyncio.timeout(timeout_s):
                return await aio_pika.connect(url, ssl_context=self.tls, connection_class=connection_class)
        except InvalidFrameError as error:
            refusal = _refusal(error)
            if refusal is None:
                raise
            raise ConnectionClosed(refusal.reply_code, refusal.reply_text) from None

    def __str__(self) -> str:
        return str(URL(self.url).with_user(None).with_query(None))


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
    """Return the broker's reason if it closed the connection during the opening: it refuses the virtual host.

    aiormq expects another frame, and its error contains only the memory address of the frame with the reason.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        found = frame.f_locals.get("frame")
        if isinstance(found, Connection.Close):
            return found
    return None
