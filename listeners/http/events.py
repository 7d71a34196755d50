"""Parse requests into messages: the guide's plain JSON; CloudEvents in headers, in JSON, or as a batch.

Parsing is strict: no unknown field in the data, no repeated key, no other charset. The id that makes a call idempotent
is the event's own. An event without an id, such as that of the guide's curl command, is identified by the content that
it names.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from email.message import Message as MimeMessage
from typing import Annotated, Any, Literal, NoReturn
from urllib.parse import unquote

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model
from starlette.datastructures import Headers

from listeners.http.refusal import Refusal
from outbox import Message
from outbox.errors import SettingsError
from relay.platform.guide import COMPLETED, id_by_content

PLAIN, STRUCTURED, BATCH = "application/json", "application/cloudevents+json", "application/cloudevents-batch+json"
TRACE = ("traceparent", "tracestate")
CONTENT_ID_LENGTH = 255
LONGEST_ID = 255
BATCH_SIZE = 1000
_BY_CONTENT = "by content"  # the id of an event without an id, until its content is known
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)  # RFC 3339, section 5.6


def _instant(text: Any) -> datetime | None:
    """Return when the event happened; ``None`` if it names no time, or one outside the range of our clocks."""
    if text is None:
        return None
    if not isinstance(text, str) or not _TIME.fullmatch(text):
        raise ValueError("write an instant as in 2026-01-31T12:00:00Z (RFC 3339)")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except OverflowError:
        return None


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("use printable characters")
    return text


Id = Annotated[str, Field(min_length=1, max_length=LONGEST_ID, json_schema_extra={"pattern": "^[!-~]+$"})]


class Event(BaseModel):
    """A CloudEvent that a receiver takes; attributes that it does not know are ignored."""

    model_config = ConfigDict(strict=True)

    specversion: Literal["1.0"]
    id: Annotated[Id, AfterValidator(_printable)]
    source: str
    type: Literal["extraction.completed"]
    subject: str | None = None
    time: Annotated[datetime | None, BeforeValidator(_instant)] = None
    data: Any


def event_with(content_id: str, length: int) -> type[Event]:
    """Return the model of events whose data is an object with a ``contentId``, and nothing else.

    Args:
        content_id: The pattern that a ``contentId`` matches as a whole.
        length: The maximum number of characters that it may have.

    Raises:
        SettingsError: The pattern is not a regular expression.
    """
    try:
        pattern = re.compile(content_id)
    except re.error as error:
        raise SettingsError(f"the pattern for contentId is not a regular expression: {error}") from None

    def matching(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"contentId must match {content_id}")
        return text

    described = {"pattern": f"^{content_id}$", "examples": ["test-content-id"]}
    text = Annotated[str, Field(max_length=length, json_schema_extra=described), AfterValidator(matching)]
    data = create_model("Data", __config__=ConfigDict(strict=True, extra="forbid"), contentId=(text, ...))
    return create_model("ContentEvent", __base__=Event, data=(data, ...))


def event_id(headers: Headers) -> str | None:
    """Return the id in the headers for the log of a call, if it is fit to be shown."""
    given = _given_id(headers)
    return given if given and given.isprintable() and len(given) <= LONGEST_ID else None


def _given_id(headers: Headers) -> str | None:
    """Return the event's id, if it is in the headers; the signed header takes precedence."""
    if (given := headers.get("webhook-id")) is not None:
        return given
    if (given := headers.get("ce-id")) is not None:
        return unquote(given)
    if (given := headers.get("idempotency-key")) is not None:
        return _unquoted(given)
    return None


def check_content_type(headers: Headers) -> str:
    """Return the media type, one of three.

    Raises:
        Refusal: The type is another one, is missing or repeated, has another charset, or the body is compressed (415).
    """
    given = headers.getlist("content-type")
    parsed = MimeMessage()
    parsed["content-type"] = given[0] if len(given) == 1 else ""
    kind = parsed.get_content_type() if given else ""
    charset = str(parsed.get_param("charset", "utf-8")).lower()
    encoding = headers.get("content-encoding", "identity").lower()
    if kind not in (PLAIN, STRUCTURED, BATCH) or charset not in ("utf-8", "utf8") or encoding != "identity":
        raise Refusal(415, "content_type", f"send JSON in UTF-8, as {PLAIN}, {STRUCTURED} or {BATCH}")
    return kind


def parse(kind: str, headers: Headers, body: bytes, model: type[Event]) -> list[Message]:
    """Return the messages of a request.

    Raises:
        Refusal: The body is not JSON, or the event id is malformed (400); or it does not follow the schema (422).
    """
    parsed = _json(body)
    if kind == PLAIN:
        event = _checked({**_attributes(headers), "data": parsed}, model)
        if event.id is _BY_CONTENT:
            event.id = id_by_content(event.data.contentId)
        return [_message(event, body, dict(headers))]
    events = parsed if kind == BATCH else [parsed]
    if not isinstance(events, list) or len(events) > BATCH_SIZE:
        raise Refusal(422, "schema", f"a batch is an array of at most {BATCH_SIZE} events")
    return [_message(_checked(each, model), json.dumps(each["data"]), each) for each in events]


def _attributes(headers: Headers) -> dict[str, str]:
    """Return the attributes of an event in binary mode; for the guide's plain JSON we supply them."""
    found = {"specversion": "1.0", "type": COMPLETED, "source": "http"}
    found |= {name[3:]: unquote(value) for name, value in headers.items() if name.startswith("ce-")}
    given = _given_id(headers)
    return found | {"id": _BY_CONTENT if given is None else given}


def _checked(event: Any, model: type[Event]) -> Event:
    try:
        return model.model_validate(event)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = str(first["loc"][0]) if first["loc"] else "event"
        status, reason = {"id": (400, "event_id"), "type": (422, "event_type")}.get(where, (422, "schema"))
        raise Refusal(status, reason, f"{where}: {first['msg']}") from None


def _message(event: Event, body: bytes | str, attributes: dict[str, Any]) -> Message:
    trace = {name: value for name in TRACE if isinstance(value := attributes.get(name), str)}
    created_at = event.time or datetime.now(UTC)
    return Message(event.id, event.type, event.source, event.subject, None, body, trace, created_at)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_json)
    except (ValueError, RecursionError):
        raise Refusal(400, "json", "the body is not JSON, or has a key twice in one object") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; refuse a repeated key, for which two parsers may keep different values."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object repeats a key")
    return found


def _no_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _unquoted(text: str) -> str:
    """Return a structured field string's content, or the bare text that many send instead (RFC 9651, section 3.3.3)."""
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return re.sub(r'\\(["\\])', r"\1", text[1:-1])
    return text
