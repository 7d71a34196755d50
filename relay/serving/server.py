"""A uvicorn server for untrusted clients: the receiving API, the health pages and the dashboard use it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import uvicorn

from outbox.errors import Unusable
from relay.serving.clients import Networks
from relay.serving.connections import Connections
from relay.serving.log_limit import LogLimit
from relay.serving.protocol import GuardedProtocol

KEEP_ALIVE_S = 30  # longer than a sender's pool keeps an idle connection, so the sender closes it first
CONNECTIONS = 1000
BACKLOG = 128
RESERVED = 64  # file descriptors for files, database connections and the like

# Log lines that untrusted clients can cause, when they send something other than HTTP or use up descriptors.
LOG_LIMITS = {"uvicorn.error": LogLimit(), "asyncio": LogLimit("socket.accept()")}


class Server(uvicorn.Server):
    """A server that leaves signals alone: its caller decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_server(
    app: Any,
    *,
    receive_timeout_s: float = 20.0,
    send_timeout_s: float = 10.0,
    keep_alive_s: int = KEEP_ALIVE_S,
    grace_s: float = 20.0,
    connections: int = CONNECTIONS,
    reserved: int = RESERVED,
    proxies: tuple[str, ...] = (),
) -> Server:
    """Make a server for an ASGI application.

    Args:
        app: The application to serve.
        receive_timeout_s: How long a request may take to arrive, headers and body together, in seconds.
        send_timeout_s: How long a client may take to read an answer, in seconds.
        keep_alive_s: How long a connection may be idle between two requests, in seconds.
        grace_s: How long requests may still take after a stop, in seconds.
        connections: The maximum number of connections, if there are enough descriptors; one client may have a quarter
            of them.
        reserved: File descriptors that the process needs for other purposes.
        proxies: Addresses and networks whose ``X-Forwarded-For`` is trusted, and whose connections have no limit per
            client.
    """
    for name, filter_ in LOG_LIMITS.items():
        logging.getLogger(name).addFilter(filter_)
    backlog, limit = affordable(connections, reserved)
    protocol = partial(
        GuardedProtocol,
        connections=Connections(limit=limit, per_client=max(limit // 4, 1)),
        proxies=Networks(proxies),
        receive_timeout_s=receive_timeout_s,
        send_timeout_s=send_timeout_s,
    )
    return Server(
        uvicorn.Config(
            app,
            http=protocol,  # type: ignore[arg-type]
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(proxies),
            forwarded_allow_ips=list(proxies),
            backlog=backlog,
            timeout_keep_alive=keep_alive_s,
            timeout_graceful_shutdown=max(int(grace_s), 1),
        )
    )


def affordable(connections: int, reserved: int) -> tuple[int, int]:
    """Return how many connections may be accepted at once, and in total, for the available descriptors.

    The event loop accepts its whole backlog before it lets us check the first connection.
    """
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return BACKLOG, connections
    backlog = min(BACKLOG, max(descriptors // 8, 1))
    return backlog, min(connections, max(descriptors - backlog - reserved, descriptors // 8, 1))


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket: from now on connections wait to be served.

    Raises:
        Unusable: The address is taken, or is not an address of this machine.
    """
    try:
        return bound(host, port)
    except OSError as error:
        raise Unusable(
            f"cannot listen on {host} port {port}: {error.strerror}; choose others with --host and --port"
        ) from None


def bound(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        OSError: The address is taken, or is not an address of this machine.
    """
    # asyncio sets TCP_NODELAY only if the protocol is named, as it is here. Without that option the body of an answer
    # waits for the caller's acknowledgement of the head: 40 ms on a connection that is used again.
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind, protocol)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


async def serve(server: Server, listening: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; requests under way may finish. A second signal ends the server at once."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        server.force_exit = server.should_exit
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await server.serve([listening])
    sys.stderr.flush()


def url_of(listening: socket.socket) -> str:
    """Return the URL of a server on a socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
