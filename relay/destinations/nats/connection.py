"""A connection with many publishes under way, each with its own acknowledgement."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from typing import Any, NamedTuple, Self

from nats.aio.client import Client
from nats.errors import Error, NoServersError

from outbox import Message
from relay.decide.outcome import Outcome, refused, unanswered, unreachable
from relay.destinations.nats import wire
from relay.destinations.nats.answer import judge
from relay.destinations.nats.settings import NatsSettings
from relay.observe import process
from relay.observe.logging import one_line, redacted

CONNECT_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 2.0
PING_S = 10  # a server that is silent for two of these intervals is given up
TROUBLE = (Error, OSError, TimeoutError)

_FORBIDDEN = re.compile(r'permissions violation for publish to "([^"]+)"', re.IGNORECASE)


class Due(NamedTuple):
    """A publish whose acknowledgement is due."""

    subject: str
    outcome: asyncio.Future[Outcome]


class NatsConnection:
    """A connection; `open` creates it. After it is lost it cannot be used again.

    Args:
        settings: The server and the subject.
        name: The destination's name.
    """

    def __init__(self, settings: NatsSettings, name: str) -> None:
        self._settings, self._name = settings, name
        self._subject = wire.subject_of(settings.subject)
        self.client = Client()
        self._due: dict[str, Due] = {}
        self._tokens = map(str, itertools.count())
        self._inbox = ""

    @classmethod
    async def open(cls, settings: NatsSettings, name: str) -> Self:
        """Connect to the first server that accepts the connection.

        Raises:
            Error, OSError, TimeoutError: No server accepts the connection; the error is that of the last server.
        """
        failure: Exception = NoServersError()
        for server in settings.servers():
            connection = cls(settings, name)
            try:
                await connection._connect(server)
                return connection
            except BaseException as error:
                await connection.close()
                if not isinstance(error, TROUBLE):
                    raise
                failure = error
        raise failure

    @property
    def is_open(self) -> bool:
        return bool(self.client.is_connected)

    async def publish(self, message: Message) -> asyncio.Future[Outcome]:
        """Publish a message; return a future of its outcome, done when the answer comes or the connection is lost."""
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        subject = self._subject(message)
        headers = wire.headers(message, self._settings.stream)
        size = wire.size(headers, message.body)
        if size > self.client.max_payload:
            outcome.set_result(refused(f"it has {size:,} bytes; the server takes {self.client.max_payload:,}"))
            return outcome
        token = next(self._tokens)
        self._due[token] = Due(subject, outcome)
        outcome.add_done_callback(lambda _: self._due.pop(token, None))
        try:
            await self.client.publish(subject, message.body, reply=f"{self._inbox}.{token}", headers=headers)
        except Error as error:
            _settle(outcome, unreachable(f"connection lost: {explained(error)}"))
        return outcome

    async def close(self) -> None:
        with contextlib.suppress(*TROUBLE):  # the server may be gone
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.client.close()
        self._lose("closed")

    async def _connect(self, server: str) -> None:
        settings = self._settings
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            try:
                await self.client.connect(
                    servers=[server],
                    name=f"outbox relay: {self._name}",
                    allow_reconnect=False,
                    max_reconnect_attempts=1,  # with 0 it never stops
                    reconnect_time_wait=0,
                    connect_timeout=CONNECT_TIMEOUT_S,
                    ping_interval=PING_S,
                    error_cb=self._on_error,
                    closed_cb=self._on_closed,
                    user_credentials=str(settings.credentials_file) if settings.credentials_file else None,
                    tls=settings.tls_context(),
                    pending_size=-1,
                )
            except NoServersError as error:
                raise self.client.last_error or error from None  # `last_error` holds the reason
            self._inbox = self.client.new_inbox()
            await self.client.subscribe(f"{self._inbox}.*", cb=self._on_answer)

    async def _on_answer(self, answer: Any) -> None:
        due = self._due.get(answer.subject.rpartition(".")[2])
        if due is None:
            return
        status = (answer.headers or {}).get("Status")
        outcome, is_duplicate = judge(answer.data, status, due.subject)
        if is_duplicate:
            process.broker_duplicates(self._name, 1)
        _settle(due.outcome, outcome)

    async def _on_error(self, error: Exception) -> None:
        """Settle a publish that the server forbids: it gets no answer, only an error that names its subject."""
        if (found := _FORBIDDEN.search(str(error))) is None:
            return
        for due in [due for due in self._due.values() if due.subject == found[1]]:
            _settle(due.outcome, unanswered(f"the server forbids publishing to {due.subject}"))

    async def _on_closed(self) -> None:
        self._lose("closed by the server")

    def _lose(self, reason: str) -> None:
        for due in list(self._due.values()):
            _settle(due.outcome, unreachable(f"connection lost: {reason}"))


def explained(error: BaseException) -> str:
    """Return a sentence for people, on one line and without a secret."""
    return one_line(redacted(str(error).removeprefix("nats: "))) or type(error).__name__


def _settle(future: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not future.done():
        future.set_result(outcome)
