"""Read a request's body within limits of size and time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

from listeners.http.refusal import CLOSING, Refusal

LINGER_S = 2.0
LINGER_BYTES = 16 * 1024 * 1024


async def read_body(request: Request, *, limit: int, timeout_s: float, keep: bool) -> bytes:
    """Return the whole body.

    Args:
        request: The request to read.
        limit: The maximum size, in bytes.
        timeout_s: How long reading may take, in seconds.
        keep: Whether to keep the body. If not, it is only measured, so unauthenticated callers fill no memory.

    Raises:
        Refusal: The body is too large (413), takes too long (408), or is incomplete (400).
    """
    declared = request.headers.get("content-length", "0")
    try:
        if not (declared.isascii() and declared.isdigit()) or int(declared[:20]) > limit:
            await _read_past(request.stream())
            raise _too_large(limit)
        async with asyncio.timeout(timeout_s):
            return await _read(request, limit, keep=keep)
    except TimeoutError:
        raise Refusal(408, "slow", f"the request did not arrive within {timeout_s:g} s", CLOSING) from None
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
    """Read on until a client that sends too much has finished, within limits.

    Closing a connection with unread data resets it, and the client would see the reset instead of the answer.
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
