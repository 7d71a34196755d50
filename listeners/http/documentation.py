"""The OpenAPI description of the endpoint. The endpoint parses requests itself, to keep the order of its checks."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from listeners.http import events
from listeners.http.refusal import Problem

REFUSALS = {
    400: "The body is not JSON, or the event id is malformed.",
    401: "The secret is missing or wrong, or the signature is wrong or stale.",
    408: "The body took too long.",
    413: "The body is too large.",
    415: "The content type is not one of the three.",
    422: "The event does not follow the schema, or was rejected: `reason` says why.",
    429: "Too many calls: `Retry-After` says when to call again.",
    500: "The event could not be handled; its handler's transaction was rolled back.",
}

RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": description} for status, description in REFUSALS.items()
}


class Success(BaseModel):
    """The handler's transaction is committed."""

    success: Literal[True]


def operation(model: type[events.Event]) -> dict[str, Any]:
    """Return the request as an OpenAPI operation."""
    event = model.model_json_schema()
    data = event["properties"]["data"] = event.pop("$defs")["Data"]  # a reference would not resolve in the document
    batch = {"type": "array", "items": event, "maxItems": events.BATCH_SIZE}
    schemas = {events.PLAIN: data, events.STRUCTURED: event, events.BATCH: batch}
    content = {kind: {"schema": schema} for kind, schema in schemas.items()}
    return {"requestBody": {"required": True, "content": content}}
