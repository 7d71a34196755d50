"""A producer that sends record batches to partitions, until it can no longer be used."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from time import time
from traceback import walk_tb
from typing import Any, Self

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, ProducerClosed

from outbox import Message
from relay.destinations.kafka import wire
from relay.destinations.kafka.answer import NO_IDEMPOTENCE, explained
from relay.destinations.kafka.reasons import telling_why
from relay.destinations.kafka.settings import KafkaSettings

START_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 2.0
GIVE_UP_S = 20.0  # how long after its deadline an unconfirmed message is given up

log = structlog.get_logger("relay")


Sent = tuple[Sequence[Message], Any]


class Producer:
    """A producer; `open` creates it.

    Args:
        producer: The library's producer, started.
        is_idempotent: Whether the broker drops messages that are sent twice over one connection.
    """

    def __init__(self, producer: AIOKafkaProducer, *, is_idempotent: bool) -> None:
        self.is_idempotent = is_idempotent
        self.is_open = True
        self._producer = producer
        self._under_way: set[asyncio.Future[Any]] = set()

    @classmethod
    async def open(cls, settings: KafkaSettings, name: str) -> Self:
        """Connect. If the broker does not support idempotence, connect without it.

        Raises:
            KafkaError, OSError, TimeoutError: No broker accepts the connection.
        """
        try:
            return await cls._open(settings, name, is_idempotent=True)
        except NO_IDEMPOTENCE as error:
            log.info("not_idempotent", broker=settings.shown, reason=explained(error))
            return await cls._open(settings, name, is_idempotent=False)

    async def partitions(self, topic: str) -> list[int]:
        """Return the topic's partitions.

        Raises:
            KafkaError: The topic does not exist, or the user may not describe it.
        """
        return sorted(await self._producer.partitions_for(topic))

    async def send(self, topic: str, partition: int, messages: Sequence[Message]) -> list[Sent]:
        """Hand batches to the library; return each batch with a future that is done when the brokers have answered."""
        sent = []
        for batch, part in self._batches(messages):
            confirmed = await self._producer.send_batch(batch, topic, partition=partition)
            self._under_way.add(confirmed)
            confirmed.add_done_callback(self._answered)
            sent.append((part, confirmed))
        return sent

    async def finish(self, timeout_s: float) -> None:
        """Wait at most this long for everything that is under way; then stop."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=timeout_s)
        await self.close()

    async def close(self) -> None:
        """Stop, and give up everything that is still under way."""
        self.is_open = False
        # The library's own `stop` waits until everything is delivered, which is forever while the brokers are away.
        # This code does the rest of its work.
        self._producer._closed = True
        await _ended(self._producer._sender.sender_task)  # must come first: the sender could open another connection
        with contextlib.suppress(KafkaError, OSError, TimeoutError):  # the brokers may be gone
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._producer.client.close()
        for answer in list(self._under_way):
            if not answer.done():
                answer.set_exception(ProducerClosed("the producer was closed"))

    def _answered(self, answer: asyncio.Future[Any]) -> None:
        self._under_way.discard(answer)
        if not answer.cancelled():
            answer.exception()  # otherwise asyncio logs it as never retrieved

    def _batches(self, messages: Sequence[Message]) -> Iterator[tuple[Any, Sequence[Message]]]:
        """Yield all messages in as few batches as possible: in one, unless the messages are large."""
        # Brokers delete records by their timestamp: with the event's time, an old message would be deleted at once.
        now_ms = int(time() * 1000)
        begin = 0
        while begin < len(messages):
            batch = self._producer.create_batch()
            end = begin
            while end < len(messages):
                message = messages[end]
                appended = batch.append(
                    timestamp=now_ms, key=wire.key(message), value=message.body, headers=wire.headers(message)
                )
                if appended is None:
                    break
                end += 1
            batch.close()
            yield batch, messages[begin:end]
            begin = end

    @classmethod
    async def _open(cls, settings: KafkaSettings, name: str, *, is_idempotent: bool) -> Self:
        password = settings.password
        producer = AIOKafkaProducer(
            bootstrap_servers=settings.bootstrap_servers,
            client_id=name,
            acks="all",
            enable_idempotence=is_idempotent,
            max_batch_size=settings.max_batch_bytes,
            request_timeout_ms=int((settings.timeout_s + GIVE_UP_S) * 1000),  # a late answer still counts
            security_protocol=settings.security_protocol,
            ssl_context=settings.tls_context(),
            sasl_mechanism=settings.sasl_mechanism,
            sasl_plain_username=settings.username,
            sasl_plain_password=password.get_secret_value() if password else None,
        )
        made = cls(producer, is_idempotent=is_idempotent)
        try:
            with telling_why(settings):
                async with asyncio.timeout(START_TIMEOUT_S):
                    await _start(producer)
        except BaseException:
            await made.close()
            raise
        return made


async def _start(producer: AIOKafkaProducer) -> None:
    """Start the library's producer; a start that is cancelled leaves no connection open.

    If the library is cancelled while it asks for the topics, it forgets its first connection, which is still open. Only
    a variable of the library's `bootstrap` refers to that connection, and the traceback leads to that variable.
    """
    try:
        await producer.start()
    except BaseException as error:
        for frame, _ in walk_tb(error.__traceback__):
            connection = frame.f_locals.get("bootstrap_conn")
            if connection is not None:
                await asyncio.wait([connection.close()], timeout=STOP_TIMEOUT_S)
        raise


async def _ended(sender: asyncio.Task[None] | None) -> None:
    """End the library's sender and its requests: a sender that is cancelled alone waits for them without limit."""
    if sender is None or sender.done():
        return
    routine: Any = sender.get_coro()
    requests = routine.cr_frame.f_locals.get("tasks", ())
    for task in (sender, *requests):
        task.cancel()
    await asyncio.wait([sender, *requests], timeout=STOP_TIMEOUT_S)
