"""The time of a message, as CloudEvents write it (RFC 3339)."""

from __future__ import annotations

from outbox import Message


def rfc3339(message: Message) -> str:
    """Return when the message was written: ``2026-01-01T10:00:00.120000Z``.

    A database returns UTC as text. That text is rewritten: to parse and print it costs three times as much.
    """
    text = message._created_at
    if isinstance(text, str) and text.endswith("+00") and text[10:11] == " ":
        seconds, point, fraction = text[11:-3].partition(".")
        return f"{text[:10]}T{seconds}{point}{fraction:0<6}Z" if point else f"{text[:10]}T{seconds}Z"
    return message.created_at.isoformat().replace("+00:00", "Z")
