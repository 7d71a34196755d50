"""Publish to JetStream; a message is delivered when a stream has acknowledged it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog
from nats.errors import Error

from outbox import Message
from relay.decide.outcome import Outcome, unanswered, unreachable
from relay.destinations.contract import together
from relay.destinations.nats.connection import NatsConnection, explained
from relay.destinations.nats.settings import NatsSettings
from relay.destinations.nats.streams import ensure
from relay.destinations.sending.connector import Connector
from relay.observe import process

log = structlog.get_logger("relay")


class NatsDestination:
    """Delivers to NATS JetStream.

    | JetStream …                                                   | outcome     |
    |---------------------------------------------------------------|-------------|
    | acknowledges, also as a duplicate                             | taken       |
    | has no stream for this message's subject, or does not answer  | unanswered  |
    | has no stream for the one subject, or another than expected   | unreachable |
    | is away, full, short of storage, not enabled                  | unreachable |
    | finds the message too large                                   | refused     |
    | forbids the subject of this message, or answers another error | failed      |

    Args:
        name: The destination's name.
        settings: The server, the subject and the limits.
    """

    def __init__(self, name: str, settings: NatsSettings) -> None:
        self.name = name
        self.concurrency = settings.concurrency
        self.batch_size = settings.batch
        self._settings = settings
        self._timeout_s = settings.timeout_s
        self._connections = Connector(self._open)

    async def start(self) -> None:
        """Do nothing: the connection is opened when it is first used."""

    def may_share(self, message: Message) -> bool:
        return True

    async def send(self, message: Message) -> Outcome:
        (outcome,) = await self._publish([message])
        return outcome

    async def send_many(self, messages: Sequence[Message]) -> Outcome | Sequence[Outcome]:
        """Publish all messages, then wait for all answers; return an outcome for each."""
        return together(await self._publish(messages))

    async def close(self) -> None:
        await self._connections.close()

    async def _publish(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        due: list[asyncio.Future[Outcome]] = []
        connection: NatsConnection | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await self._connections.get()
                before = connection.duplicate_count
                for message in messages:
                    due.append(await connection.publish(message))  # noqa: PERF401 (what is due counts when time is up)
                outcomes = [await each for each in due]
        except TimeoutError:
            return self._late(connection, due, len(messages))
        except (Error, OSError) as error:
            return [unreachable(f"no connection to {self._settings.shown}: {explained(error)}")] * len(messages)
        if count := connection.duplicate_count - before:
            process.broker_duplicates(self.name, count)
            log.info("duplicates_dropped", destination=self.name, count=count)
        return outcomes

    def _late(
        self, connection: NatsConnection | None, due: list[asyncio.Future[Outcome]], count: int
    ) -> Sequence[Outcome]:
        """Return the outcomes after the deadline: those that were answered have theirs, the others are late."""
        if connection is None:
            late = unreachable(f"no connection to {self._settings.shown} in time")
        else:
            late = unanswered(f"{self._settings.shown} did not acknowledge within {self._timeout_s:g} s")
        found = [each.result() if _is_answered(each) else late for each in due]
        for each in due:
            each.cancel()
        return [*found, *[late] * (count - len(due))]

    async def _open(self) -> NatsConnection:
        connection = await NatsConnection.open(self._settings, f"outbox relay: {self.name}")
        log.info("broker_connected", destination=self.name)
        if self._settings.declare:
            try:
                await ensure(connection.client, self._settings)
            except BaseException:
                await connection.close()
                raise
        return connection


def _is_answered(future: asyncio.Future[Outcome]) -> bool:
    return future.done() and not future.cancelled()
