"""Append messages to streams; a message is delivered when Redis has answered with the entry's id."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError

from outbox import Message
from relay.decide.outcome import Outcome, unanswered, unreachable
from relay.destinations.contract import together
from relay.destinations.redis import server
from relay.destinations.redis.answer import explained, judge
from relay.destinations.redis.settings import RedisSettings
from relay.destinations.redis.wire import Wire
from relay.destinations.sending import naming

PRODUCER = "neverlost"


class RedisDestination:
    """Delivers to Redis Streams.

    | Redis …                                                    | outcome     |
    |------------------------------------------------------------|-------------|
    | answers with the entry's id                                | taken       |
    | does not answer in time                                    | unanswered  |
    | is away, refuses the login                                 | unreachable |
    | takes no writes: loading, out of memory, a replica         | unreachable |
    | forbids the one stream, or its key holds another type      | unreachable |
    | forbids the stream of this event type, or any other error  | failed      |

    Args:
        name: The destination's name.
        settings: The server, the stream and the limits.
    """

    def __init__(self, name: str, settings: RedisSettings) -> None:
        self.name = name
        self.concurrency = settings.concurrency
        self.batch_size = settings.batch
        self._settings = settings
        self._timeout_s = settings.timeout_s
        self._shares_a_stream = naming.is_literal(settings.stream)
        self._wire = Wire(naming.namer(settings.stream), settings.maxlen, f"{PRODUCER}:{name}")
        self._client: Redis | None = None
        self._deduplicates: bool | None = None if settings.deduplicate else False

    async def start(self) -> None:
        """Do nothing: connections are opened when they are first used."""

    def may_share(self, message: Message) -> bool:
        return True

    async def send(self, message: Message) -> Outcome:
        (outcome,) = await self._pipeline([message])
        return outcome

    async def send_many(self, messages: Sequence[Message]) -> Outcome | Sequence[Outcome]:
        """Send one pipeline; return an outcome for each message."""
        return together(await self._pipeline(messages))

    async def _pipeline(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        try:
            async with asyncio.timeout(self._timeout_s):
                answers = await self._append(messages)
        except TimeoutError:
            return [unanswered(f"{self._settings.shown} did not answer within {self._timeout_s:g} s")] * len(messages)
        except (RedisError, OSError) as error:
            return [unreachable(f"{self._settings.shown}: {explained(error)}")] * len(messages)
        return [judge(answer, shares_a_stream=self._shares_a_stream) for answer in answers]

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def _append(self, messages: Sequence[Message]) -> list[Any]:
        client = self._connected()
        deduplicated = await self._can_deduplicate(client) if self._deduplicates is None else self._deduplicates
        pipeline = client.pipeline(transaction=False)
        for message in messages:
            pipeline.execute_command(*self._wire.command(message, deduplicated=deduplicated))
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers

    def _connected(self) -> Redis:
        if self._client is None:
            self._client = server.connect(self._settings)
        return self._client

    async def _can_deduplicate(self, client: Redis) -> bool:
        """Check once whether the server drops messages that it already has.

        Raises:
            RedisError: It does not, but the settings require it.
        """
        try:
            found = await server.version(client)
        except NoPermissionError:
            if self._settings.deduplicate is True:
                raise
            self._deduplicates = False  # the server's abilities may be unknown
            return False
        can = found >= server.DEDUPLICATES_FROM
        if self._settings.deduplicate is True and not can:
            raise RedisError(
                f"Redis {server.shown(found)} has no XADD … IDMP, which came with "
                f"{server.shown(server.DEDUPLICATES_FROM)}: set deduplicate = false, or use a newer server"
            )
        self._deduplicates = can
        return can
