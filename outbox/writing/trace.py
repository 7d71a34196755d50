"""The host's trace, if it has one: each message carries the context of the span in which it was created.

OpenTelemetry is looked up in the loaded modules and never imported: a worker that does not trace need not install it.
If an SDK is set up, each message gets its own span (``create``, PRODUCER), and all later spans about the message link
to it. Without an SDK the current context is passed on unchanged.

Source: https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

Headers = Mapping[str, str]
Creation = Callable[[str, str], Headers]  # takes a message's id and type

NONE: Headers = {}
SYSTEM = "outbox"

_tracer: tuple[Any, Any] | None = None  # (provider, its tracer)


def creation() -> Creation:
    """Return a function that gives a message, by its id and type, the headers of the trace in which it is created."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return _untraced
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        headers = headers_of(trace.get_current_span().get_span_context())
        return (lambda _id, _type: headers) if headers else _untraced
    tracer = _tracer_of(provider)

    def create(id: str, type_: str) -> Headers:
        span = tracer.start_span(
            f"create {SYSTEM}", kind=trace.SpanKind.PRODUCER, attributes=attributes("create", id, type_)
        )
        span.end()
        return headers_of(span.get_span_context())

    return create


def attributes(operation: str, id: str, type_: str, *, name: str = SYSTEM, system: str = SYSTEM) -> dict[str, Any]:
    """Return the attributes of a span about one message."""
    about = {"messaging.message.id": id, "cloudevents.event_id": id, "cloudevents.event_type": type_}
    return common_attributes(operation, name, system) | about


def common_attributes(operation: str, name: str, system: str) -> dict[str, Any]:
    """Return the attributes of any span about messages for a destination."""
    return {
        "messaging.system": system,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": name,
    }


def headers_of(context: Any) -> Headers:
    """Return a span's context as headers; empty if the context is invalid.

    Source: https://www.w3.org/TR/trace-context/#traceparent-header
    """
    if not context.is_valid:
        return NONE
    headers = {"traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"}
    if context.trace_state:
        headers["tracestate"] = context.trace_state.to_header()
    return headers


def _untraced(_id: str, _type: str) -> Headers:
    return NONE


def _tracer_of(provider: Any) -> Any:
    global _tracer
    if _tracer is None or _tracer[0] is not provider:
        _tracer = provider, provider.get_tracer("neverlost")
    return _tracer[1]
