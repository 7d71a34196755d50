"""A RabbitMQ consumer under test, and what it leaves in the database."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from listeners.rabbitmq import Consumer, Limits
from outbox import Message
from relay.databases.database import Database as RelayDatabase
from relay.decide.backoff import Policy
from relay.destinations.rabbitmq.amqp import Broker
from support.databases import Database
from support.rabbitmq import QUEUE, RabbitServer
from support.waiting import eventually_async

QUICK = Limits(retry=Policy(max_attempts=3, backoff_s=0.02, backoff_max_s=0.1), grace_s=5)


@asynccontextmanager
async def consuming(rabbitmq: RabbitServer, database: Database, **options: Any) -> AsyncIterator[Consumer]:
    options.setdefault("limits", QUICK)
    consumer = Consumer(Broker(rabbitmq.url), RelayDatabase.parse(database.url), **options)
    running = asyncio.create_task(consumer.run())
    try:
        await eventually_async(lambda: consumer.health().broker)  # what it logs of its start was said, too
        yield consumer
    finally:
        consumer.stop()
        await running


def with_extraction(database: Database, content_id: str = "c-1") -> None:
    columns = "id, title, source, media_type, sha256"
    values = f"'{content_id}', 't', 's', 'text/plain', '{'0' * 64}'"
    database.execute(f"INSERT INTO contents ({columns}) VALUES ({values})")
    topics = json.dumps([{"topic": "outbox", "weight": 1.0, "sentences": [1]}])
    with database.engine.begin() as connection:
        cast = "CAST(:topics AS jsonb)" if database.kind == "postgres" else ":topics"
        statement = f"INSERT INTO extractions (content_id, topics) VALUES (:content_id, {cast})"
        connection.execute(text(statement), {"content_id": content_id, "topics": topics})


def baselines(database: Database) -> list[str]:
    rows = database.rows("SELECT content_id FROM topic_graphs WHERE type = 'BASELINE' ORDER BY content_id")
    return [row[0] for row in rows]


async def is_empty(rabbitmq: RabbitServer) -> None:
    """Wait until the queue has no ready or unacknowledged messages: it can then be deleted if empty and unused."""
    await eventually_async(lambda: asyncio.to_thread(rabbitmq.is_drained, QUEUE))


def effect_table(database: Database) -> None:
    database.execute("CREATE TABLE effect (message_id VARCHAR(255) NOT NULL)")


def effects(database: Database) -> list[str]:
    return [row[0] for row in database.rows("SELECT message_id FROM effect ORDER BY message_id")]


def apply(message: Message, session: Session) -> None:
    session.execute(text("INSERT INTO effect (message_id) VALUES (:id)"), {"id": message.id})
