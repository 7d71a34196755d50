"""Publish to JetStream; a message is delivered when a stream has acknowledged it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog
from nats.errors import Error

from outbox import Message
from relay.decide.outcome import Outcome, unanswered, unreachable
from relay.destinations.contract import Batching
from relay.destinations.nats.connection import NatsConnection, explained
from relay.destinations.nats.settings import NatsSettings
from relay.destinations.sending.connector import Connector

log = structlog.get_logger("relay")


class NatsDestination(Batching):
    """Delivers to NATS JetStream.

    | JetStream …                                                   | outcome     |
    |---------------------------------------------------------------|-------------|
    | acknowledges it, even as a duplicate                          | taken       |
    | has no stream for this message's subject, or forbids it       | unanswered  |
    | does not answer in time                                       | unanswered  |
    | is away, full, short of storage, not enabled                  | unreachable |
    | takes the subject into another stream than expected           | unreachable |
    | finds the message too large                                   | refused     |
    | answers with another error                                    | failed      |

    Args:
        name: The destination's name.
        settings: The server, the subject and the limits.
    """

    def __init__(self, name: str, settings: NatsSettings) -> None:
        super().__init__(name, concurrency=settings.concurrency, batch_size=settings.batch)
        settings.tls_context()  # reports a fault in the files now
        self._settings = settings
        self._timeout_s = settings.timeout_s
        self._connections = Connector(self._open)

    async def outcomes(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        """Publish all messages, then wait for all answers."""
        due: list[asyncio.Future[Outcome]] = []
        late = unreachable(f"no connection to {self._settings.shown} in time")
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await self._connections.get()
                late = unanswered(f"{self._settings.shown} did not acknowledge within {self._timeout_s:g} s")
                for message in messages:
                    due.append(await connection.publish(message))  # noqa: PERF401 (kept on a timeout)
                await asyncio.wait(due)
        except TimeoutError:
            pass  # the answers that have arrived count
        except (Error, OSError) as error:
            return [unreachable(f"no connection to {self._settings.shown}: {explained(error)}")] * len(messages)
        answered = [late if each.cancel() else each.result() for each in due]
        return [*answered, *[late] * (len(messages) - len(due))]

    async def close(self) -> None:
        await self._connections.close()

    async def _open(self) -> NatsConnection:
        connection = await NatsConnection.open(self._settings, self.name)
        log.info("broker_connected", destination=self.name)
        return connection
