"""A message before it is written: first as the caller passes it, then checked and ready to store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple, TypedDict
from uuid import UUID

from pydantic_core import to_json

from outbox.checks.attributes import checked_delay, checked_expiry, checked_headers, checked_key, checked_subject
from outbox.checks.ids import new_id, normal_id
from outbox.checks.payload import to_payload
from outbox.errors import InvalidEvent, UntypedEvent
from outbox.event import Event, checked_type
from outbox.message import NO_HEADERS
from outbox.writing.trace import Creation

_checked_type = lru_cache(1_024)(checked_type)  # a worker has few types
_NEVER = None, None  # most messages have none of the options, and skip their checks


class Common(TypedDict, total=False):
    """The options that several messages can share: those of ``emit`` after the data, except the id."""

    ordering_key: str | None
    delay: timedelta | float | None
    due_at: datetime | None
    headers: Mapping[str, str] | None
    subject: str | None
    strict_order: bool
    expires_in: timedelta | float | None


class Options(Common, total=False):
    """The options of one message: those of ``emit`` after the data."""

    id: UUID | str | None


@dataclass(slots=True, eq=False)
class Draft:
    """A message for ``emit_many``, with its own options.

    Its arguments are those of ``emit`` after the target.

    Example:
        >>> drafts = [Draft("extraction.completed", {"contentId": each}, ordering_key=each) for each in ("c-1", "c-2")]
    """

    event: Event | str
    data: Any = None
    _: KW_ONLY
    ordering_key: str | None = None
    delay: timedelta | float | None = None
    due_at: datetime | None = None
    headers: Mapping[str, str] | None = None
    subject: str | None = None
    id: UUID | str | None = None
    strict_order: bool = False
    expires_in: timedelta | float | None = None


class Prepared(NamedTuple):
    """A message that every database and wire can hold. It exists only after all checks have passed."""

    id: str
    type: str
    source: str
    subject: str | None
    ordering_key: str | None
    data: str
    headers: str
    due_at: datetime | None
    delay_s: float | None
    strict_order: bool
    has_given_id: bool = False
    expires_at: datetime | None = None
    expires_s: float | None = None  # from now


def prepare(source: str, draft: Draft, trace: Creation) -> Prepared:
    """Check a draft; return it with an id and in its final form.

    Args:
        source: The CloudEvents source of the writer.
        draft: The message as the caller passed it.
        trace: Returns the headers of the trace in which the message is created.

    Raises:
        EmitError: A subclass says what is wrong and what to do.
    """
    type_, data = _type_and_data(draft.event, draft.data)
    no_delay = draft.delay is None and draft.due_at is None
    delay_s, due_at = _NEVER if no_delay else checked_delay(draft.delay, draft.due_at)
    id = new_id() if draft.id is None else normal_id(draft.id)
    expires_s, expires_at = _NEVER if draft.expires_in is None else checked_expiry(draft.expires_in, delay_s, due_at)
    subject = None if draft.subject is None else checked_subject(draft.subject)
    key = _checked_order(draft) if draft.ordering_key is not None or draft.strict_order else None
    payload = to_payload(data)
    headers = _headers(draft.headers, trace, id, type_)
    strict_order, has_given_id = draft.strict_order, draft.id is not None
    # By position, in the order of the fields: to pass them by name would cost a third as much as the serialising.
    return Prepared(
        id, type_, source, subject, key, payload, headers, due_at, delay_s, strict_order, has_given_id,
        expires_at, expires_s,
    )  # fmt: skip


def _type_and_data(event: Event | str, data: Any) -> tuple[str, Any]:
    if not isinstance(event, str):
        return _type_and_data_of(event, data)
    if data is None:
        raise InvalidEvent(f"the event {ascii(event)[:60]} has no data: pass it after the type, or {{}} if it has none")
    return _checked_type(event), data


def _type_and_data_of(event: Event, data: Any) -> tuple[str, Any]:
    if not isinstance(event, Event):
        raise InvalidEvent(f"{ascii(event)[:60]} is not an event: pass an Event instance, or a type and data")
    type_ = type(event).__event_type__
    if type_ is None:
        name = type(event).__name__
        raise UntypedEvent(f'{name} has no type: define it as class {name}(Event, type="some.thing")')
    if data is not None:
        raise InvalidEvent(f"{type(event).__name__} carries its own data: leave the second argument out")
    return type_, event.to_data()


def _checked_order(draft: Draft) -> str | None:
    if draft.strict_order and draft.ordering_key is None:
        raise InvalidEvent("strict_order needs an ordering_key: only messages with the same key have an order")
    return checked_key(draft.ordering_key)


def _headers(own: Mapping[str, str] | None, trace: Creation, id: str, type_: str) -> str:
    checked = checked_headers(own) if own else {}
    headers = trace(id, type_)  # after all checks, so that a refused message gets no span
    if not checked and not headers:
        return NO_HEADERS
    return to_json({**checked, **headers}).decode()
