"""The host's trace, if it has one: the producer's span becomes the parent of every delivery."""

from __future__ import annotations

import sys


def trace_headers() -> dict[str, str]:
    """The current trace context as headers; empty unless the host has imported OpenTelemetry and a span is active.

    OpenTelemetry is looked up and never imported: a worker that does not trace need not have it installed.

    Source: https://www.w3.org/TR/trace-context/#traceparent-header
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return {}
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    headers = {"traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"}
    if context.trace_state:
        headers["tracestate"] = context.trace_state.to_header()
    return headers
