"""Spans of the life of a message, by OpenTelemetry's conventions for messaging.

| span               | kind     | when                                 | its parent, and its link                   |
|--------------------|----------|--------------------------------------|--------------------------------------------|
| ``create outbox``  | PRODUCER | `emit`; its context is stored        | a child of the worker's span               |
| ``send NAME``      | CLIENT   | each attempt at a destination        | a separate trace, linked to ``create``     |
| ``process NAME``   | CONSUMER | each call of a listener, here or     | the current span, linked to ``create``;    |
|                    |          | in ``serve`` and ``consume``         | with `trace_children`, a child of it       |
| ``settle outbox``  | CLIENT   | each batch that is settled           | a separate trace, linked to ``create``     |

The context that is stored with a message never changes, so every attempt sends the same one. The host sets up the SDK.
If none is set up when a relay starts, no function is wrapped, so tracing costs nothing.

Source: https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from outbox import Message
from outbox.writing.trace import attributes, common_attributes
from relay.decide.outcome import Outcome
from relay.observe.attempt import Outcomes, Sent, messages_of, outcomes_of

MOST_LINKS = 64  # the most links of one span
SYSTEM = "outbox"
ERROR_TYPE = "error.type"

NO_PARENT = Context()

_propagator = TraceContextTextMapPropagator()


class _Options:
    children = False


def configure(*, children: bool) -> None:
    """Set whether a ``process`` span is a child of the span that created the message, or is only linked to it."""
    _Options.children = children


def system_of(kind: str) -> str:
    """Return the name of a destination's kind in spans: the broker's name, or ours if there is no broker."""
    return SYSTEM if kind in ("http", "listener") else kind


def tracer() -> trace.Tracer | None:
    """Return the host's tracer; ``None`` if the host has set up no SDK."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    return provider.get_tracer("neverlost")


def sending(
    name: str, system: str, send: Callable[[Sent], Awaitable[Outcomes]]
) -> Callable[[Sent], Awaitable[Outcomes]]:
    """Return a function that sends a message, or a batch, within a span; `send` itself if there is no tracer.

    Args:
        name: The destination's name.
        system: The system: ``rabbitmq``, ``kafka``, … or ``outbox``.
        send: Makes one attempt.
    """
    known = tracer()
    if known is None:
        return send

    async def traced(sent: Sent) -> Outcomes:
        messages = messages_of(sent)
        facts = _of_batch("send", name, system, len(messages))
        if isinstance(sent, Message):
            facts = _of_message("send", name, system, sent) | {"outbox.attempt": sent.attempt}
        with _span(known, f"send {name}", SpanKind.CLIENT, facts, links(messages)) as span:
            outcomes = await send(sent)
            for outcome in outcomes_of(outcomes):
                note(span, outcome)
            return outcomes

    return traced


def processing(
    name: str, system: str, run: Callable[[Message, Any], Awaitable[Any]]
) -> Callable[[Message, Any], Awaitable[Any]]:
    """Return a function that runs a listener within a span; `run` itself if there is no tracer.

    Args:
        name: The listener's name in the inbox.
        system: The system that its messages come from: ``rabbitmq``, or ``outbox``.
        run: Runs the listener.
    """
    known = tracer()
    if known is None:
        return run

    async def traced(message: Message, gate: Any) -> Any:
        facts = _of_message("process", name, system, message)
        within = _stored(message) if _Options.children else None
        with _span(known, f"process {name}", SpanKind.CONSUMER, facts, links([message]), within):
            return await run(message, gate)

    return traced


@contextmanager
def _span(
    known: trace.Tracer,
    name: str,
    kind: SpanKind,
    facts: dict[str, Any],
    linked: Sequence[Link],
    within: Context | None = NO_PARENT,
) -> Iterator[Span]:
    """Enter a span; by default it begins a new trace. ``None``: it is a child of the current span."""
    entered = known.start_as_current_span(name, within, kind, facts, linked, set_status_on_exception=False)
    with entered as span, _failing(span):
        yield span


@contextmanager
def _failing(span: Span) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        _fail(span, type(error).__qualname__)
        raise


def settling(known: trace.Tracer, messages: Iterable[Message], count: int) -> Span:
    """Begin the span of a settled batch."""
    return known.start_span(
        f"settle {SYSTEM}",
        Context(),
        SpanKind.CLIENT,
        _of_batch("settle", SYSTEM, SYSTEM, count),
        links(messages),
    )


@contextmanager
def ending(span: Span | None) -> Iterator[None]:
    """End a span, if there is one, after the block."""
    if span is None:
        yield
        return
    try:
        with _failing(span):
            yield
    finally:
        span.end()


def note(span: Span, outcome: Outcome) -> None:
    """Record the outcome of an attempt."""
    if outcome.kind != "taken":
        _fail(span, outcome.kind, outcome.reason)


def links(messages: Iterable[Message]) -> list[Link]:
    """Return links to the spans that created the first messages, if these carry a context."""
    found = []
    for message in messages:
        context = trace.get_current_span(_stored(message)).get_span_context()
        if context.is_valid:
            found.append(Link(context, {"messaging.message.id": message.id}))
        if len(found) == MOST_LINKS:
            break
    return found


def _stored(message: Message) -> Context:
    return _propagator.extract(message.headers, Context())


def _fail(span: Span, kind: str, reason: str = "") -> None:
    span.set_attribute(ERROR_TYPE, kind)
    span.set_status(Status(StatusCode.ERROR, reason or kind))


def _of_message(operation: str, name: str, system: str, message: Message) -> dict[str, Any]:
    return attributes(operation, message.id, message.type, name=name, system=system)


def _of_batch(operation: str, name: str, system: str, count: int) -> dict[str, Any]:
    return common_attributes(operation, name, system) | {"messaging.batch.message_count": count}
