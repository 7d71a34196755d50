"""A message's subject and headers on NATS."""

import pytest

from outbox import Message
from relay.destinations.nats import wire


def message(type: str = "a.b", key: str | None = None, headers: str = "{}") -> Message:
    return Message("id-1", type, "outbox", None, key, "{}", headers, "2026-01-01 10:00:00+00")


@pytest.mark.parametrize(
    ("template", "type_", "key", "subject"),
    [
        ("{type}", "a.b", None, "a.b"),
        ("events", "a.b", None, "events"),
        ("e.{type}.{key}", "a.b", "c-1", "e.a.b.c-1"),
        ("e.{type}.{key}", "a.b", None, "e.a.b.-"),
        ("{type}", "a..b*", None, "a.%.b%2A"),
        ("{key}", "a", "x.y > z", "x%2Ey%20%3E%20z"),
        ("{key}", "a", "schlüssel", "schl%C3%BCssel"),
    ],
)
def test_a_subject_has_no_character_that_means_something_to_the_server(
    template: str, type_: str, key: str | None, subject: str
) -> None:
    assert wire.subject_of(template)(message(type_, key)) == subject


def test_the_producers_headers_cannot_instruct_the_server() -> None:
    found = wire.headers(message(headers='{"NATS-Rollup": "all", "x-tenant": "7"}'), stream=None)
    assert found["x-tenant"] == "7"
    assert [name for name in found if name.lower().startswith("nats-")] == ["Nats-Msg-Id"]


def test_the_size_is_what_the_library_writes() -> None:
    headers = wire.headers(message(headers='{"x-tenant": "7"}'), stream="S")
    written = b"NATS/1.0\r\n" + b"".join(f"{name}: {value}\r\n".encode() for name, value in headers.items()) + b"\r\n"
    assert wire.size(headers, b"body") == len(written) + 4
