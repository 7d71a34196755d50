"""What a listener is given."""

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
    """One message, as a listener gets it.

    Building one is on the relay's hot path, so that text from the database is kept as it is and parsed when asked
    for: ``data``, ``headers`` and ``created_at`` cost nothing to a listener that does not look at them.

    Args:
        id: The message id; the same on every attempt.
        type: The event type.
        source: Who wrote it.
        subject: What it is about, if it says so.
        ordering_key: The key whose messages are delivered in order.
        body: The event's data as JSON text.
        headers: The producer's headers, as a dict or as JSON text.
        created_at: When it was written: a ``datetime``, or text as PostgreSQL or SQLite prints it. Without an offset
            it is UTC.
        attempt: Which try this is, from 1.

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
        # `_data` stays unset until it is asked for: one store less, and None is a value that JSON has.

    @property
    def body(self) -> bytes:
        """The data exactly as it goes over a wire: JSON in UTF-8, the same bytes on every attempt."""
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
        """The producer's headers, trace context included."""
        if isinstance(self._headers, str):
            self._headers = json.loads(self._headers) if self._headers != NO_HEADERS else {}
        return self._headers

    @property
    def created_at(self) -> datetime:
        """When the message was written, by the database's clock, in UTC."""
        if isinstance(self._created_at, str):
            self._created_at = _parse_instant(self._created_at)
        return self._created_at

    @overload
    def event(self) -> Event: ...
    @overload
    def event(self, cls: type[E]) -> E: ...
    def event(self, cls: type[Event] | None = None) -> Event:
        """The data as an instance of its Event class.

        Args:
            cls: The class to use; by default the one that was defined with this message's type.

        Raises:
            UnknownEvent: No class, or more than one, was defined with this type.
            Reject: The data does not fit the class, and never will.

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


def _parse_instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)


def _summary(error: ValidationError) -> str:
    """Where it does not fit and why, without the values: a reason is stored and shown."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, each['loc'])) or 'the whole'}: {each['msg']}" for each in problems[:5])
