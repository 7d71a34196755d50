"""One graph of spans for each message, from `emit` to the listener that took it, over each kind of transport."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy.orm import Session
from support.consuming import consuming
from support.databases import Database
from support.rabbitmq import RabbitServer
from support.scene import Scene, Taker, failing, to
from support.serving import serving
from support.waiting import eventually_async

from listeners.http import Receiver, create_app
from outbox import Message, emit
from relay.databases.database import Database as Target
from relay.destinations.http.settings import HttpSettings
from relay.destinations.rabbitmq.settings import RabbitSettings
from relay.observe import tracing
from relay.platform.guide import PATH
from relay.relay import Relay
from relay.settings import Settings

TYPE = "extraction.completed"
SECRET = "a-secret-0123456789abcdef0123456789"


class Spans:
    """The recorded spans."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()

    def of(self, operation: str) -> list[ReadableSpan]:
        found = self.exporter.get_finished_spans()
        return [each for each in found if (each.attributes or {}).get("messaging.operation.type") == operation]

    def one(self, operation: str) -> ReadableSpan:
        (span,) = self.of(operation)
        return span


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    """An SDK, as a host sets one up; it is removed after the test."""
    found, provider = Spans(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(found.exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield found
    tracing.configure(children=False)
    provider.shutdown()


def emitted(database: Database, content_id: str = "c-1") -> tuple[str, trace.SpanContext]:
    """Emit within a span of the worker; return the message's id and that span."""
    tracer = trace.get_tracer("worker")
    with tracer.start_as_current_span("extract") as span, database.engine.begin() as connection:
        return emit(connection, TYPE, {"contentId": content_id}), span.get_span_context()


def linked(span: ReadableSpan) -> list[int]:
    return [link.context.span_id for link in span.links]


def check_graph(spans: Spans, message_id: str, worker: trace.SpanContext, *, system: str) -> None:
    create, send, process, settle = map(spans.one, ("create", "send", "process", "settle"))
    assert [each.kind for each in (create, send, process, settle)] == [
        SpanKind.PRODUCER, SpanKind.CLIENT, SpanKind.CONSUMER, SpanKind.CLIENT,
    ]  # fmt: skip
    assert create.parent is not None
    assert create.parent.span_id == worker.span_id
    assert create.context is not None
    for each in (send, process, settle):
        assert linked(each) == [create.context.span_id]
        assert each.status.status_code is StatusCode.UNSET
    for each in (create, send, process):
        assert each.attributes is not None
        assert each.attributes["messaging.message.id"] == message_id
        assert each.attributes["cloudevents.event_type"] == TYPE
        assert each.name.startswith(str(each.attributes["messaging.operation.name"]))
    assert send.attributes is not None
    assert send.attributes["messaging.system"] == system


async def test_a_listener(spans: Spans, database: Database) -> None:
    seen: list[int] = []

    def listener(message: Message, session: Session) -> None:
        seen.append(trace.get_current_span().get_span_context().span_id)

    scene = Scene(database)
    message_id, worker = emitted(database)
    await scene.drain({"a": to(listener, events=[TYPE])})
    await eventually_async(lambda: len(spans.of("settle")) == 1)
    check_graph(spans, message_id, worker, system="outbox")
    process, send = spans.one("process"), spans.one("send")
    assert process.context is not None
    assert seen == [process.context.span_id]
    assert send.context is not None
    assert process.context.trace_id == send.context.trace_id


async def test_http(spans: Spans, database: Database) -> None:
    receiver = Receiver([SECRET], handler=lambda message: None)
    async with serving(create_app(receiver, Target.parse("sqlite:///none.db"))) as url:
        message_id, worker = emitted(database)
        api = HttpSettings(url=url + PATH, secret=SECRET)
        async with Relay(Settings(database_url=database.url, destinations={"api": api}, health_port=0)) as relay:
            await relay.drain()
            await eventually_async(lambda: len(spans.of("settle")) == 1)
    check_graph(spans, message_id, worker, system="outbox")


async def test_rabbitmq(spans: Spans, sqlite_database: Database, rabbitmq: RabbitServer) -> None:
    async def listener(message: Message) -> None:
        """Take it."""

    rabbit = RabbitSettings.model_validate({"url": rabbitmq.url, "events": [TYPE]})
    settings = Settings(database_url=sqlite_database.url, destinations={"rabbitmq": rabbit}, health_port=0)
    async with consuming(rabbitmq, sqlite_database, listener=listener), Relay(settings) as relay:
        message_id, worker = emitted(sqlite_database)
        await relay.drain()
        await eventually_async(lambda: len(spans.of("settle")) == len(spans.of("process")) == 1)
    check_graph(spans, message_id, worker, system="rabbitmq")
    process = spans.one("process")
    assert process.attributes is not None
    assert process.attributes["messaging.system"] == "rabbitmq"


async def test_every_attempt_has_a_span_and_is_linked_to_the_same_creation(spans: Spans, database: Database) -> None:
    scene = Scene(database)
    scene.emit(1)
    async with scene.relay({"a": Taker(failing(0, times=2))}):
        await scene.becomes(1, 0, 0, 0)
        await eventually_async(lambda: len(spans.of("send")) == 3)
    create = spans.one("create")
    assert create.context is not None
    assert {tuple(linked(each)) for each in spans.of("send")} == {(create.context.span_id,)}
    errors = [(each.attributes or {}).get("error.type") for each in spans.of("send")]
    assert errors == ["failed", "failed", None]
    assert [(each.attributes or {}).get("error.type") for each in spans.of("process")] == ["ValueError"] * 2 + [None]


async def test_an_option_makes_the_processing_a_child(spans: Spans, database: Database) -> None:
    scene = Scene(database)
    scene.emit(1)
    await scene.drain({"a": Taker()}, trace_children=True)
    create, process = spans.one("create"), spans.one("process")
    assert process.parent is not None
    assert create.context is not None
    assert process.parent.span_id == create.context.span_id


async def test_the_links_of_a_batch_are_capped(spans: Spans, database: Database) -> None:
    scene = Scene(database)
    scene.emit(500)
    await scene.drain({"a": Taker()})
    settles = spans.of("settle")
    assert sum((each.attributes or {})["messaging.batch.message_count"] for each in settles) == 500  # type: ignore[misc]
    assert max(len(each.links) for each in settles) <= tracing.MOST_LINKS


def test_without_an_sdk_nothing_is_wrapped() -> None:
    async def send(message: Message) -> Any:
        """Do nothing."""

    assert tracing.tracer() is None
    assert tracing.sending("a", "outbox", send) is send
    assert tracing.processing("a", "outbox", send) is send  # type: ignore[arg-type, comparison-overlap]
