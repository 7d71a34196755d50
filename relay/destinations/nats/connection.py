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
from relay.decide.outcome import Outcome, failed, refused, unreachable
from relay.destinations.nats import wire
from relay.destinations.nats.answer import judge
from relay.destinations.nats.settings import NatsSettings
from relay.destinations.sending import naming
from relay.observe.logging import one_line, redacted

CONNECT_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 2.0
PING_S = 10  # a server that is silent for two of these intervals is given up

_FORBIDDEN = re.compile(r'permissions violation for publish to "([^"]+)"', re.IGNORECASE)


class Due(NamedTuple):
    """A publish whose acknowledgement is due."""

    subject: str
    outcome: asyncio.Future[Outcome]


class NatsConnection:
    """A connection; `open` creates it. After it is lost it cannot be used again.

    Attributes:
        duplicate_count: How many messages a stream already had.
    """

    def __init__(self, settings: NatsSettings) -> None:
        self.duplicate_count = 0
        self._settings = settings
        self._subject = wire.subject_of(settings.subject)
        self._shares_a_subject = naming.is_literal(settings.subject)
        self.client = Client()
        self._due: dict[str, Due] = {}
        self._tokens = map(str, itertools.count())
        self._inbox = ""

    @classmethod
    async def open(cls, settings: NatsSettings, name: str) -> Self:
        """Connect to the first server that accepts the connection.

        Raises:
            Error, OSError, TimeoutError: No server does; the error is that of the last one.
        """
        *others, last = settings.servers()
        for server in others:
            with contextlib.suppress(Error, OSError, TimeoutError):  # the next one is tried
                return await cls._open(settings, server, name)
        return await cls._open(settings, last, name)

    @classmethod
    async def _open(cls, settings: NatsSettings, server: str, name: str) -> Self:
        connection = cls(settings)
        try:
            await connection._connect(server, name)
        except BaseException:
            await connection.close()
            raise
        return connection

    @property
    def is_open(self) -> bool:
        return bool(self.client.is_connected)

    async def publish(self, message: Message) -> asyncio.Future[Outcome]:
        """Publish a message; return a future of its outcome, done after the answer or the loss of the connection."""
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
        with contextlib.suppress(Error, OSError, TimeoutError):  # the server has gone already
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.client.close()
        self._lose("closed")

    async def _connect(self, server: str, name: str) -> None:
        settings = self._settings
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await self._try(
                servers=[server],
                name=name,
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
            self._inbox = self.client.new_inbox()
            await self.client.subscribe(f"{self._inbox}.*", cb=self._on_answer)

    async def _try(self, **options: Any) -> None:
        try:
            await self.client.connect(**options)
        except NoServersError as error:
            raise self.client.last_error or error from None  # it holds the reason

    async def _on_answer(self, answer: Any) -> None:
        due = self._due.get(answer.subject.rpartition(".")[2])
        if due is None:
            return
        status = (answer.headers or {}).get("Status")
        outcome, is_duplicate = judge(answer.data, status, due.subject, shares_a_subject=self._shares_a_subject)
        self.duplicate_count += is_duplicate
        _settle(due.outcome, outcome)

    async def _on_error(self, error: Exception) -> None:
        """Settle a publish that the server forbids: there is no answer to it, only an error with its subject."""
        if (found := _FORBIDDEN.search(str(error))) is None:
            return
        judged = unreachable if self._shares_a_subject else failed
        for due in [due for due in self._due.values() if due.subject == found[1]]:
            _settle(due.outcome, judged(f"the server forbids to publish to {due.subject}"))

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
