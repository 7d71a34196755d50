"""Reading a request's body: no more of it, and for no longer, than agreed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

from listeners.http.refusal import CLOSING, Refusal

LINGER_S = 2.0
LINGER_BYTES = 16 * 1024 * 1024


async def read_body(request: Request, *, limit: int, timeout_s: float, keep: bool) -> bytes:
    """The whole body.

    Args:
        request: Whose.
        limit: Bytes at most.
        timeout_s: Seconds at most.
        keep: Hold on to it; else it is only measured, so that strangers fill no memory.

    Raises:
        Refusal: It is larger (413), or takes longer (408), or does not come to its end (400).
    """
    declared = request.headers.get("content-length", "0")
    try:
        if not (declared.isascii() and declared.isdigit()) or int(declared[:20]) > limit:
            await _read_past(request.stream())
            raise _too_large(limit)
        async with asyncio.timeout(timeout_s):
            return await _read(request, limit, keep=keep)
    except TimeoutError:
        raise Refusal(408, "slow", f"the request did not come within {timeout_s:g} s", CLOSING) from None
    except ClientDisconnect:
        raise Refusal(400, "disconnected", "the request broke off", CLOSING) from None


async def _read(request: Request, limit: int, *, keep: bool) -> bytes:
    body = bytearray()
    size = 0
    chunks = request.stream()
    async for chunk in chunks:
        size += len(chunk)
        if size > limit:
            await _read_past(chunks)
            raise _too_large(limit)
        if keep:
            body += chunk
    return bytes(body)


async def _read_past(chunks: AsyncIterator[bytes]) -> None:
    """Let a client that sends too much finish, within reason.

    Closing a connection with something unread on it resets it, and the client would see that instead of the answer.
    """
    size = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            async for chunk in chunks:
                size += len(chunk)
                if size > LINGER_BYTES:
                    return


def _too_large(limit: int) -> Refusal:
    return Refusal(413, "too_large", f"a request has at most {limit} bytes", CLOSING)
