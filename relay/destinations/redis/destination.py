"""Append messages to streams; a message is delivered when Redis has answered with the entry's id."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.exceptions import NoPermissionError, RedisError

from outbox import Message
from relay.decide.outcome import Outcome, unanswered, unreachable
from relay.destinations.contract import Batching
from relay.destinations.redis import server
from relay.destinations.redis.answer import explained, judge
from relay.destinations.redis.settings import RedisSettings
from relay.destinations.redis.wire import Wire
from relay.destinations.sending import naming

PRODUCER = "neverlost"


class RedisDestination(Batching):
    """Delivers to Redis Streams.

    | Redis …                                                    | outcome     |
    |------------------------------------------------------------|-------------|
    | answers with the entry's id                                | taken       |
    | does not answer in time                                    | unanswered  |
    | forbids this message's stream, or its key is no stream     | unanswered  |
    | is away, refuses the login                                 | unreachable |
    | takes no writes: loading, out of memory, a replica         | unreachable |
    | answers with another error                                 | failed      |

    Args:
        name: The destination's name.
        settings: The server, the stream and the limits.
    """

    def __init__(self, name: str, settings: RedisSettings) -> None:
        super().__init__(name, concurrency=settings.concurrency, batch_size=settings.batch)
        settings.tls_context()  # reports a fault in the files now
        self._settings = settings
        self._timeout_s = settings.timeout_s
        self._wire = Wire(naming.namer(settings.stream), settings.maxlen, f"{PRODUCER}:{name}")
        self._client = server.connect(settings)
        self._deduplicates: bool | None = None

    async def outcomes(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        """Send one pipeline."""
        try:
            async with asyncio.timeout(self._timeout_s):
                answers = await self._append(messages)
        except TimeoutError:
            return [unanswered(f"{self._settings.shown} did not answer within {self._timeout_s:g} s")] * len(messages)
        except (RedisError, OSError) as error:
            return [unreachable(f"{self._settings.shown}: {explained(error)}")] * len(messages)
        return [judge(answer) for answer in answers]

    async def close(self) -> None:
        await self._client.aclose()

    async def _append(self, messages: Sequence[Message]) -> list[Any]:
        if self._deduplicates is None:
            self._deduplicates = await self._can_deduplicate()
        pipeline = self._client.pipeline(transaction=False)
        for message in messages:
            pipeline.execute_command(*self._wire.command(message, deduplicated=self._deduplicates))
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers

    async def _can_deduplicate(self) -> bool:
        """Return whether the server drops messages that it already has; false if it does not tell its version."""
        try:
            return await server.version(self._client) >= server.DEDUPLICATES_FROM
        except NoPermissionError:
            return False
