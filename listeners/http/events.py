"""Parse requests into messages: the guide's plain JSON; CloudEvents in headers, in JSON, or as a batch.

Parsing is strict: no unknown field, no repeated key, no other charset. The id that makes a call idempotent is the
event's own. A caller that sends none, such as the guide's curl, is identified by the content that it names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message as MimeMessage
from typing import Any, NoReturn
from urllib.parse import unquote

from starlette.datastructures import Headers

from listeners.http.refusal import Refusal
from outbox import Message
from relay.platform.guide import COMPLETED, CONTENT_ID, id_by_content

PLAIN, STRUCTURED, BATCH = "application/json", "application/cloudevents+json", "application/cloudevents-batch+json"
TRACE = ("traceparent", "tracestate")
CONTENT_ID_LENGTH = 255
LONGEST_ID = 255
BATCH_SIZE = 1000
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)  # RFC 3339, section 5.6


@dataclass(frozen=True, slots=True)
class Schema:
    """The rules for an event's data.

    Args:
        content_id: The pattern that a ``contentId`` matches as a whole.
        length: The maximum number of characters that it may have.
    """

    content_id: re.Pattern[str] = re.compile(CONTENT_ID)
    length: int = CONTENT_ID_LENGTH

    def check(self, data: Any) -> str:
        """Return the content's id.

        Raises:
            Refusal: The data breaks the rules (422); the message does not repeat the data.
        """
        if not isinstance(data, dict) or set(data) != {"contentId"}:
            raise _unprocessable("schema", "the event's data must be an object with contentId and nothing else")
        content_id = data["contentId"]
        if not isinstance(content_id, str):
            raise _unprocessable("schema", "contentId must be a string")
        if len(content_id) > self.length or not self.content_id.fullmatch(content_id):
            raise _unprocessable(
                "content_id",
                f"contentId must match {self.content_id.pattern} and have at most {self.length} characters",
            )
        return content_id


def event_id(headers: Headers) -> str | None:
    """Return the id in the headers, if it is fit to be shown, for the log of a call."""
    try:
        return _id_in(headers)
    except Refusal:
        return None


def check_content_type(headers: Headers) -> str:
    """Return the media type, one of three.

    Raises:
        Refusal: It is another type, missing, repeated, in another charset, or the body is compressed (415).
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


def parse(kind: str, headers: Headers, body: bytes, schema: Schema) -> list[Message]:
    """Return the messages of a request.

    Raises:
        Refusal: The body is not JSON (400), or does not follow the schema (422).
    """
    parsed = _json(body)
    if kind == PLAIN:
        return [_plain(headers, body, schema.check(parsed))]
    events = parsed if kind == BATCH else [parsed]
    if not isinstance(events, list) or len(events) > BATCH_SIZE:
        raise _unprocessable("schema", f"a batch is an array of at most {BATCH_SIZE} events")
    return [_event(each, schema) for each in events]


def _plain(headers: Headers, body: bytes, content_id: str) -> Message:
    if headers.get("ce-specversion", "1.0") != "1.0":
        raise _unprocessable("specversion", "only CloudEvents 1.0 is understood")
    type_ = unquote(headers.get("ce-type", COMPLETED))
    _check_type(type_)
    subject, time = headers.get("ce-subject"), headers.get("ce-time")
    return Message(
        _id_in(headers) or id_by_content(content_id),
        type_,
        unquote(headers.get("ce-source", "http")),
        None if subject is None else unquote(subject),
        None,
        body,
        dict(_trace(headers)),
        _instant(None if time is None else unquote(time)),
    )


def _event(event: Any, schema: Schema) -> Message:
    wanted = ("specversion", "id", "source", "type")
    if not isinstance(event, dict) or not all(isinstance(event.get(name), str) for name in wanted):
        raise _unprocessable("schema", "a CloudEvent is an object with specversion, id, source and type")
    if event["specversion"] != "1.0":
        raise _unprocessable("specversion", "only CloudEvents 1.0 is understood")
    _check_type(event["type"])
    schema.check(event.get("data"))
    subject, time = event.get("subject"), event.get("time")
    if not isinstance(subject, str | None):
        raise _unprocessable("schema", "subject must be a string")
    return Message(
        _checked_id(event["id"]),
        event["type"],
        event["source"],
        subject,
        None,
        json.dumps(event["data"]),
        {name: value for name in TRACE if isinstance(value := event.get(name), str)},
        _instant(time),
    )


def _json(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_json)
    except (ValueError, RecursionError):
        raise Refusal(400, "json", "the body is not JSON, or has a key twice in one object") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; refuse a repeated key, of which two parsers may keep different values."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object repeats a key")
    return found


def _no_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _id_in(headers: Headers) -> str | None:
    """Return the event's id; the signed header takes precedence."""
    if (given := headers.get("webhook-id")) is not None:
        return _checked_id(given)
    if (given := headers.get("ce-id")) is not None:
        return _checked_id(unquote(given))
    if (given := headers.get("idempotency-key")) is not None:
        return _checked_id(_unquoted(given))
    return None


def _unquoted(text: str) -> str:
    """Return a structured field string's content, or the bare text that many send instead (RFC 9651, section 3.3.3)."""
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return re.sub(r'\\(["\\])', r"\1", text[1:-1])
    return text


def _checked_id(text: str) -> str:
    if not 0 < len(text) <= LONGEST_ID or not text.isprintable():
        raise Refusal(400, "event_id", f"an event id has 1 to {LONGEST_ID} printable characters")
    return text


def _check_type(text: str) -> None:
    if text != COMPLETED:
        raise _unprocessable("event_type", f"only {COMPLETED} is received here")


def _instant(text: Any) -> datetime:
    """Return when the event happened. If it names no time, or one outside the range of our clocks, return now.

    Raises:
        Refusal: The time is malformed (422).
    """
    if text is None:
        return datetime.now(UTC)
    if not isinstance(text, str) or not _TIME.fullmatch(text):
        raise _unprocessable("schema", "time must be an instant as in 2026-01-31T12:00:00Z (RFC 3339)")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except OverflowError:
        return datetime.now(UTC)
    except ValueError:
        raise _unprocessable("schema", "time must be an instant that exists") from None


def _trace(headers: Headers) -> Iterator[tuple[str, str]]:
    for name in TRACE:
        if (value := headers.get(name)) is not None:
            yield name, value


def _unprocessable(reason: str, message: str) -> Refusal:
    return Refusal(422, reason, message)
