"""uvicorn, with patience of a known size: who drips is cut off, whatever it is that drips.

uvicorn limits how long a connection may be idle between two requests, and how large a header may get; but a client that
sends one byte of a header every few seconds keeps its connection for ever, and so does one that was refused and goes on
sending its body. So each request has a deadline for arriving, as a whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from outbox.errors import Unusable

KEEP_ALIVE_S = 30  # longer than a sender's pool keeps an idle connection, which then is the one to close it
CONNECTIONS = 1000
BACKLOG = 1024
HEADER_BYTES = 32 * 1024


class ImpatientProtocol(H11Protocol):
    """HTTP/1.1 with a deadline for each request to arrive, and for a new connection to send one."""

    def __init__(self, *arguments: Any, receive_timeout_s: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._receive_timeout_s = receive_timeout_s
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_request()

    def data_received(self, data: bytes) -> None:
        self._await_request()
        super().data_received(data)
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _await_request(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self._receive_timeout_s, self._cut_off)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _cut_off(self) -> None:
        self.transport.abort()


class Server(uvicorn.Server):
    """Leaves signals alone: whoever runs it says when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_server(
    app: FastAPI, *, receive_timeout_s: float = 20.0, grace_s: float = 20.0, proxies: tuple[str, ...] = ()
) -> Server:
    """A server for the application.

    Args:
        app: What to serve.
        receive_timeout_s: Seconds in which a request has to arrive, headers and body together.
        grace_s: Seconds that requests may still take when it stops.
        proxies: Addresses whose ``X-Forwarded-For`` is believed.
    """
    return Server(
        uvicorn.Config(
            app,
            http=partial(ImpatientProtocol, receive_timeout_s=receive_timeout_s),  # type: ignore[arg-type]
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(proxies),
            forwarded_allow_ips=list(proxies),
            limit_concurrency=CONNECTIONS,
            h11_max_incomplete_event_size=HEADER_BYTES,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(int(grace_s), 1),
        )
    )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket: from here on connections wait to be served.

    Raises:
        Unusable: The address is taken, or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise Unusable(
            f"cannot listen on {host} port {port}: {error.strerror}; choose others with --host and --port"
        ) from None
    return listening


async def serve(server: Server, listening: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT: what is under way may finish. A second signal ends it at once."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        server.force_exit = server.should_exit
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await server.serve([listening])
    sys.stderr.flush()
