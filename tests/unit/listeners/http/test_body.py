"""Reading bodies: what is refused, and what is kept."""

import pytest
from starlette.requests import Request
from starlette.types import Message

from listeners.http.body import read_body
from listeners.http.refusal import Refusal


def request(*chunks: bytes, declared: str | None = None, then: str = "http.request") -> Request:
    messages: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": then, "body": b"", "more_body": False})
    waiting = iter(messages)

    async def receive() -> Message:
        return next(waiting)

    headers = [] if declared is None else [(b"content-length", declared.encode())]
    return Request({"type": "http", "headers": headers}, receive)


async def test_a_body_is_read_whole_up_to_the_limit() -> None:
    assert await read_body(request(b"ab", b"cd"), limit=4, timeout_s=5, keep=True) == b"abcd"


async def test_what_a_stranger_sends_is_measured_and_not_kept() -> None:
    assert await read_body(request(b"ab", b"cd"), limit=4, timeout_s=5, keep=False) == b""
    with pytest.raises(Refusal, match="at most 3 bytes"):
        await read_body(request(b"ab", b"cd"), limit=3, timeout_s=5, keep=False)


@pytest.mark.parametrize("declared", ["5", "9" * 5000, "x", "-1", "٣"])
async def test_a_declared_length_beyond_the_limit_or_sense_is_too_large(declared: str) -> None:
    with pytest.raises(Refusal) as refused:
        await read_body(request(b"ab", declared=declared), limit=4, timeout_s=5, keep=True)
    assert refused.value.status == 413


async def test_a_request_that_breaks_off_is_refused() -> None:
    with pytest.raises(Refusal) as refused:
        await read_body(request(b"ab", then="http.disconnect"), limit=4, timeout_s=5, keep=True)
    assert (refused.value.status, refused.value.reason) == (400, "disconnected")
