"""Publish record batches; a message is delivered when all in-sync replicas have it."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence

import structlog
from aiokafka.errors import KafkaError, ProducerClosed, UnknownTopicOrPartitionError

from outbox import Message
from relay.decide.outcome import TAKEN, Outcome, refused, unanswered, unreachable
from relay.destinations.contract import Batching
from relay.destinations.kafka import wire
from relay.destinations.kafka.answer import ends_a_producer, explained, judge, may_be_of_a_record
from relay.destinations.kafka.producer import GIVE_UP_S, Producer
from relay.destinations.kafka.settings import TOPIC, KafkaSettings
from relay.destinations.sending import naming
from relay.destinations.sending.connector import Connector
from relay.destinations.sending.due import Due

log = structlog.get_logger("relay")
Outcomes = dict[str, Outcome]


class KafkaDestination(Batching):
    """Delivers to Kafka.

    | the brokers …                                                     | outcome                   |
    |-------------------------------------------------------------------|---------------------------|
    | confirm the batch (``acks=all``)                                  | taken                     |
    | reject a batch because of a record: too large, invalid            | each again, alone         |
    | reject a record that is alone                                     | refused                   |
    | find the topic invalid, forbid it, or do not know it              | unanswered                |
    | do not confirm in time, have no leader or too few replicas for a  | unanswered                |
    | partition                                                         |                           |
    | are away, refuse the login                                        | unreachable               |
    | answer anything else                                              | failed                    |

    A message that was not confirmed in time may have been stored, or may be stored later. The destination still expects
    its answer, and the next attempt waits for that answer instead of publishing the message again.

    Args:
        name: The destination's name.
        settings: The brokers, the topic and the limits.
    """

    def __init__(self, name: str, settings: KafkaSettings) -> None:
        super().__init__(name, concurrency=settings.concurrency, batch_size=settings.batch)
        settings.tls_context()  # reports a fault in the files now
        self._settings = settings
        self._timeout_s = settings.timeout_s
        self._topic = naming.namer(settings.topic)
        self._producers = Connector(self._open)
        self._due: Due[Outcomes] = Due()
        self._closing: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        under_way = list(self._due)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self._producers.close()
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def outcomes(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        """Send one record batch for each partition."""
        late = unanswered(f"{self._settings.shown} did not confirm it within {self._timeout_s:g} s")
        known: Outcomes = {}
        try:
            async with asyncio.timeout(self._timeout_s):
                if new := [each for each in messages if self._due.get(each.id) is None]:
                    known |= await self._publish(new)
                if answers := {answer for each in messages if (answer := self._due.get(each.id))}:
                    await asyncio.wait(answers)
        except TimeoutError:
            pass  # the answers that have arrived count
        except (KafkaError, OSError) as error:
            late = unreachable(f"no connection to {self._settings.shown}: {explained(error)}")
        finally:
            for each in messages:
                if (answer := self._due.get(each.id)) and answer.done() and not answer.cancelled():
                    known[each.id] = answer.result()[each.id]
            self._due.let_go([each.id for each in messages])
        return [known.get(each.id, late) for each in messages]

    async def _publish(self, messages: Sequence[Message]) -> Outcomes:
        """Start a task for each batch; return the outcomes of messages that cannot be published."""
        producer = await self._producers.get()
        known: Outcomes = {}
        topics: dict[str, list[Message]] = defaultdict(list)
        for message in messages:
            topics[self._topic(message)].append(message)
        found = await asyncio.gather(*(self._partitions(producer, topic) for topic in topics))
        for (topic, group), partitions in zip(topics.items(), found, strict=True):
            if isinstance(partitions, Outcome):
                known |= dict.fromkeys([each.id for each in group], partitions)
                continue
            for partition, part in _by_partition(group, partitions).items():
                work = self._bounded(producer, topic, partition, part)
                self._due.add([each.id for each in part], asyncio.create_task(work))
        return known

    async def _partitions(self, producer: Producer, topic: str) -> Sequence[int] | Outcome:
        if not TOPIC.fullmatch(topic):
            return refused(f"{topic!r} cannot name a topic")
        try:
            async with asyncio.timeout(self._timeout_s / 2):
                return await producer.partitions(topic)
        except (TimeoutError, UnknownTopicOrPartitionError):
            return unanswered(f"{self._settings.shown} knows no topic {topic}, or no leader for it: create the topic")
        except KafkaError as error:
            outcome = judge(error)
            return Outcome(outcome.kind, f"topic {topic}: {outcome.reason}")

    async def _bounded(self, producer: Producer, topic: str, partition: int, messages: Sequence[Message]) -> Outcomes:
        """Give up messages that stay unconfirmed: another relay may have delivered them and their successors."""
        try:
            async with asyncio.timeout(self._timeout_s + GIVE_UP_S):
                return await self._publish_to(producer, topic, partition, messages)
        except TimeoutError:
            self._retire(producer, ProducerClosed("the brokers have not confirmed for too long"))
            given_up = unanswered(f"{self._settings.shown} did not confirm it for too long: given up")
            return dict.fromkeys([each.id for each in messages], given_up)

    async def _publish_to(
        self, producer: Producer, topic: str, partition: int, messages: Sequence[Message]
    ) -> Outcomes:
        found: Outcomes = {}
        try:
            sent = await producer.send(topic, partition, messages)
        except (KafkaError, OSError) as error:
            return self._rejected(producer, messages, error)
        for part, confirmed in sent:
            try:
                await confirmed
            except (KafkaError, OSError) as error:
                if may_be_of_a_record(error) and len(part) > 1:
                    self._retire(producer, error)
                    found |= await self._one_by_one(topic, partition, part)
                else:
                    found |= self._rejected(producer, part, error)
            else:
                found |= dict.fromkeys([each.id for each in part], TAKEN)
        return found

    async def _one_by_one(self, topic: str, partition: int, messages: Sequence[Message]) -> Outcomes:
        """Publish messages one by one, after their batch was rejected because of one record. None was stored."""
        found: Outcomes = {}
        for message in messages:
            try:
                producer = await self._producers.get()
            except (KafkaError, OSError) as error:
                found[message.id] = judge(error)
            else:
                found |= await self._publish_to(producer, topic, partition, [message])
        return found

    def _rejected(self, producer: Producer, messages: Sequence[Message], error: Exception) -> Outcomes:
        self._retire(producer, error)
        return dict.fromkeys([each.id for each in messages], judge(error))

    def _retire(self, producer: Producer, error: Exception) -> None:
        """Give no new batch to a producer that can no longer be used; batches under way may finish."""
        if not producer.is_open or not ends_a_producer(error, is_idempotent=producer.is_idempotent):
            return
        log.info("producer_retired", destination=self.name, reason=explained(error))
        producer.is_open = False
        task = asyncio.create_task(producer.finish(self._timeout_s))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _open(self) -> Producer:
        producer = await Producer.open(self._settings, f"neverlost-{self.name}")
        log.info("broker_connected", destination=self.name, idempotent=producer.is_idempotent)
        return producer


def _by_partition(messages: Sequence[Message], partitions: Sequence[int]) -> dict[int, list[Message]]:
    """Group messages by partition: those with a key go to its partition, all others together to any partition."""
    found: dict[int, list[Message]] = defaultdict(list)
    anywhere = random.choice(partitions)  # noqa: S311 (spreads load)
    for message in messages:
        key = wire.key(message)
        found[anywhere if key is None else partitions[wire.partition(key, len(partitions))]].append(message)
    return found
