"""The message that a listener receives."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, TypeVar, overload

from pydantic import ValidationError

from outbox.errors import Reject
from outbox.event import Event, event_class

E = TypeVar("E", bound=Event)

NO_HEADERS = "{}"


class Message:
    """A message, as a listener receives it.

    The relay builds one of these for each delivery, so construction is cheap: text from the database is kept as it is.
    ``data``, ``headers`` and ``created_at`` are parsed when a listener first reads them.

    Args:
        id: The message id; the same on every attempt.
        type: The event type.
        source: The CloudEvents source of the writer.
        subject: What the event is about, or ``None``.
        ordering_key: The key whose messages are delivered in order, or ``None``.
        body: The event's data as JSON text.
        headers: The producer's headers, as a dict or as JSON text.
        created_at: When it was written: a ``datetime``, or text as PostgreSQL or SQLite prints it. Text without an
            offset is UTC.
        attempt: The number of this attempt, from 1.

    Example:
        >>> message = Message("0197…", "extraction.completed", "outbox", None, "c-1", '{"contentId": "c-1"}', "{}",
        ...                   "2026-01-01 10:00:00.123+00")
        >>> message.data["contentId"]
        'c-1'
    """

    __slots__ = (
        "_body",
        "_created_at",
        "_data",
        "_headers",
        "attempt",
        "id",
        "ordering_key",
        "source",
        "subject",
        "type",
    )

    def __init__(
        self,
        id: str,
        type: str,
        source: str,
        subject: str | None,
        ordering_key: str | None,
        body: str | bytes,
        headers: str | dict[str, str],
        created_at: str | datetime,
        attempt: int = 1,
    ) -> None:
        self.id = id
        self.type = type
        self.source = source
        self.subject = subject
        self.ordering_key = ordering_key
        self._body = body
        self._headers = headers
        self._created_at = created_at
        self.attempt = attempt
        # `_data` stays unset until it is read: that saves one assignment, and None is a valid JSON value.

    @property
    def body(self) -> bytes:
        """The data exactly as it is sent: JSON in UTF-8, the same bytes on every attempt."""
        if isinstance(self._body, str):
            self._body = self._body.encode()
        return self._body

    @property
    def data(self) -> Any:
        """The data, parsed."""
        try:
            return self._data
        except AttributeError:
            self._data: Any = json.loads(self._body)
            return self._data

    @property
    def headers(self) -> dict[str, str]:
        """The producer's headers, including those of the trace context."""
        if isinstance(self._headers, str):
            self._headers = json.loads(self._headers) if self._headers != NO_HEADERS else {}
        return self._headers

    @property
    def created_at(self) -> datetime:
        """When the message was written, by the database's clock, in UTC."""
        if isinstance(self._created_at, str):
            self._created_at = parse_instant(self._created_at)
        return self._created_at

    def copy(self) -> Message:
        """Return a copy with its own data and headers."""
        return Message(
            self.id,
            self.type,
            self.source,
            self.subject,
            self.ordering_key,
            self._body,
            self._headers if isinstance(self._headers, str) else dict(self._headers),
            self._created_at,
            self.attempt,
        )

    @overload
    def event(self) -> Event: ...
    @overload
    def event(self, cls: type[E]) -> E: ...
    def event(self, cls: type[Event] | None = None) -> Event:
        """Return the data as an instance of its Event class.

        Args:
            cls: The class to use; by default the one that was defined with this message's type.

        Raises:
            UnknownEvent: No class, or more than one, was defined with this type.
            Reject: The data does not fit the class, so no later attempt can succeed.

        Example:
            >>> message = Message("0197…", "user.joined", "outbox", None, None, '{"name": "Ada"}', "{}", "2026-01-01")
            >>> class UserJoined(Event, type="user.joined"):
            ...     name: str
            >>> message.event(UserJoined).name
            'Ada'
        """
        cls = cls or event_class(self.type)
        try:
            return cls.model_validate_json(self._body)
        except ValidationError as error:
            raise Reject(f"the data does not fit {cls.__name__}: {_summary(error)}") from error

    def __repr__(self) -> str:
        return f"<Message {self.id} {self.type} attempt {self.attempt}>"


def parse_instant(text: str) -> datetime:
    """Return an instant that PostgreSQL or SQLite printed; text without an offset is UTC."""
    instant = datetime.fromisoformat(text)
    return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)


def _summary(error: ValidationError) -> str:
    """Return where the data does not fit and why, without the values: a reason is stored and shown."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, each['loc'])) or 'the whole'}: {each['msg']}" for each in problems[:5])
