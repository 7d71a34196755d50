"""The OpenAPI description of the endpoint. The endpoint parses requests itself, to keep the order of its checks."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from listeners.http import events
from listeners.http.refusal import Problem
from relay.platform.guide import COMPLETED

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

EVENT_FIELDS = {
    "specversion": {"const": "1.0"},
    "id": {"type": "string", "minLength": 1, "maxLength": events.LONGEST_ID, "pattern": "^[!-~]+$"},
    "source": {"type": "string"},
    "type": {"const": COMPLETED},
    "subject": {"type": ["string", "null"]},
    "time": {"type": ["string", "null"], "format": "date-time"},
}


class Success(BaseModel):
    """The handler's transaction is committed."""

    success: Literal[True]


def operation(schema: events.Schema) -> dict[str, Any]:
    """Return the request as an OpenAPI operation."""
    data = {
        "type": "object",
        "properties": {
            "contentId": {
                "type": "string",
                "pattern": f"^{schema.content_id.pattern}$",
                "maxLength": schema.length,
                "examples": ["test-content-id"],
            }
        },
        "required": ["contentId"],
        "additionalProperties": False,
    }
    event = {
        "type": "object",
        "properties": {**EVENT_FIELDS, "data": data},
        "required": ["specversion", "id", "source", "type", "data"],
    }
    batch = {"type": "array", "items": event, "maxItems": events.BATCH_SIZE}
    schemas = {events.PLAIN: data, events.STRUCTURED: event, events.BATCH: batch}
    content = {kind: {"schema": schema} for kind, schema in schemas.items()}
    return {"requestBody": {"required": True, "content": content}}
