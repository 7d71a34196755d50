"""A uvicorn server for strangers: what the receiving API, the health page and the dashboard are served by."""

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
from relay.serving.protocol import GuardedProtocol
from relay.serving.sparing import Sparing

KEEP_ALIVE_S = 30  # longer than a sender's pool keeps an idle connection, which then is the one to close it
CONNECTIONS = 1000
BACKLOG = 128
RESERVED = 64  # descriptors for files, database connections and the like

# What strangers can have logged: that they send no HTTP, and that there are no descriptors for more of them.
SPARING = {"uvicorn.error": Sparing(), "asyncio": Sparing("socket.accept()")}


class Server(uvicorn.Server):
    """Leaves signals alone: its caller says when to stop."""

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
        app: What to serve.
        receive_timeout_s: Seconds in which a request has to arrive, headers and body together.
        send_timeout_s: Seconds in which an answer has to be taken.
        keep_alive_s: Seconds that a connection may be idle between two requests.
        grace_s: Seconds that requests may still take when it stops.
        connections: Connections at most, as far as descriptors suffice; one client may have a quarter of them.
        reserved: Descriptors that are needed for something else.
        proxies: Addresses and networks whose ``X-Forwarded-For`` is believed, and whose connections are not counted
            against a client.
    """
    for name, sparing in SPARING.items():
        logging.getLogger(name).addFilter(sparing)
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
    """Return how many connections are accepted at once, and how many there may be, as descriptors permit.

    The event loop accepts a whole backlog before it lets us look at the first connection of it.
    """
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return BACKLOG, connections
    backlog = min(BACKLOG, max(descriptors // 8, 1))
    return backlog, min(connections, max(descriptors - backlog - reserved, descriptors // 8, 1))


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
