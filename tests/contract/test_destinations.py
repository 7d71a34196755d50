"""Every kind of destination keeps the contract that packages can run against kinds of their own."""

import re
from pathlib import Path

import pytest
from support.kafka import KafkaServer
from support.nats import NatsServer
from support.rabbitmq import RabbitServer
from support.redis import RedisServer
from support.worlds import http_world, kafka_world, listener_world, nats_world, rabbitmq_world, redis_world

from outbox.testing.destination_contract import PROMISES, Promise
from relay.destinations import registry

every_promise = pytest.mark.parametrize("promise", PROMISES, ids=str)


@every_promise
def test_a_listener_keeps_the_contract(promise: Promise) -> None:
    promise(listener_world())


@every_promise
def test_http_keeps_the_contract(promise: Promise) -> None:
    with http_world() as world:
        promise(world)


@every_promise
def test_http_in_batches_keeps_the_contract(promise: Promise) -> None:
    with http_world(batch=20) as world:
        promise(world)


@every_promise
def test_rabbitmq_keeps_the_contract(promise: Promise, rabbitmq: RabbitServer) -> None:
    promise(rabbitmq_world(rabbitmq))


@every_promise
def test_redis_keeps_the_contract(promise: Promise, redis: RedisServer) -> None:
    promise(redis_world(redis))


@every_promise
def test_nats_keeps_the_contract(promise: Promise, nats: NatsServer) -> None:
    promise(nats_world(nats))


@every_promise
def test_kafka_keeps_the_contract(promise: Promise, kafka: KafkaServer) -> None:
    promise(kafka_world(kafka))


def test_every_kind_of_ours_has_its_test_here() -> None:
    """A kind that is added without a world would otherwise be tested against none of the promises."""
    source = Path(__file__).read_text()
    tested = {kind for kind in registry.OURS if re.search(rf"(promise\(|with ){kind}_world\(", source)}
    assert set(registry.OURS) - tested == set()
