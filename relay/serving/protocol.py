"""uvicorn's HTTP/1.1 protocol with time limits.

uvicorn limits the idle time between two requests. It does not limit how long a request takes to arrive, how long an
answer takes to be read, or the size of a header that arrives in one piece. This class limits each of them, and closes
the connection of a client that exceeds a limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from relay.serving.clients import Networks, client_of
from relay.serving.connections import Connections

HEADER_BYTES = 32 * 1024  # large enough for a producer's headers and a long, percent-encoded subject
PIECE_BYTES = 4096  # h11 measures only incomplete headers; in pieces of this size, a long header is incomplete


class GuardedProtocol(H11Protocol):
    """One connection.

    Args:
        connections: The tracked connections.
        proxies: Addresses that many clients share.
        receive_timeout_s: How long a whole request may take to arrive, including the first one of a connection, in
            seconds.
        send_timeout_s: How long a client may take to read an answer, in seconds.
    """

    def __init__(
        self,
        *arguments: Any,
        connections: Connections,
        proxies: Networks,
        receive_timeout_s: float,
        send_timeout_s: float,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.conn = _Connection(h11.SERVER, HEADER_BYTES)
        self._admission, self._proxies = connections, proxies
        self._receiving = _Deadline(receive_timeout_s, self.cut_off)
        self._sending = _Deadline(send_timeout_s, self.cut_off)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        if not self._admission.arrive(self, client_of(address), is_proxy=address in self._proxies):
            self.cut_off()
            return
        transport.set_write_buffer_limits(high=0)  # pause_writing is then called for any unread byte
        self._receiving.start()

    def data_received(self, data: bytes) -> None:
        self._receiving.start()
        for at in range(0, len(data), PIECE_BYTES):
            if self.transport.is_closing():
                return
            super().data_received(data[at : at + PIECE_BYTES])
        self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._admission.wait(self)
        self._look()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._sending.start()
        self._admission.wait(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._sending.stop()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        self._admission.leave(self)
        self._receiving.stop()
        self._sending.stop()
        super().connection_lost(exc)

    def cut_off(self) -> None:
        self.transport.abort()

    def _look(self) -> None:
        """Update whose turn it is: the client's or ours."""
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._receiving.stop()
            self._admission.work(self)


class _Deadline:
    """Calls a function after a time."""

    def __init__(self, timeout_s: float, act: Callable[[], None]) -> None:
        self._timeout_s, self._act = timeout_s, act
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start the time, unless it runs."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._timeout_s, self._act)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Connection(h11.Connection):
    """Checks a complete header's size too: h11 checks only incomplete ones."""

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            size = sum(len(name) + len(value) for name, value in event.headers) + len(event.target)
            if size > HEADER_BYTES:
                raise h11.RemoteProtocolError("the header is too long", error_status_hint=431)
        return event
