"""The health pages of a relay, a receiver or a consumer: ``/healthz``, ``/readyz`` and ``/metrics``.

The process's own event loop serves them: if the loop is blocked, the pages do not answer, as a probe expects. Readiness
covers this process and the sources of its messages (its database, its broker), never a destination: a restart would not
cure a destination's outage. The pages are served on the loopback address, unless a host is set.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any, Protocol

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from relay.serving import Server, make_server
from relay.serving.clients import client_of
from relay.serving.rate import Rate
from relay.serving.server import bound

# The reason names hosts, ports and roles, and this page has no authentication.
SEE_THE_LOG = "it cannot work now; its log says why"
TRY_AGAIN_S = 5.0
TIMEOUT_S = 5.0
CONNECTIONS = 64
REQUESTS_PER_S, REQUESTS_AT_ONCE = 50.0, 100  # of one client; probes and Prometheus need one a second
LOOPBACK = "127.0.0.1"
SOURCES = ("database", "schema", "broker")  # a process cannot work without these
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"

log = structlog.get_logger("relay")


class Health(Protocol):
    """The health of a process: `relay.relay.Health`, or that of a consumer.

    It may also have the state of ``database``, ``schema`` and ``broker``, and the number of shards that it ``owns``.
    """

    @property
    def loop_age_s(self) -> float: ...
    @property
    def detail(self) -> str: ...


class Observed(Protocol):
    """The part of a relay or a consumer that these pages use."""

    def health(self) -> Health: ...


class HealthServer:
    """Serves a process's health while the context is open.

    Args:
        observed: The relay or consumer whose health is served.
        port: The port; 0: do not serve.
        host: The address to listen on, or its host name.
        stale_after_s: How long the event loop may stand still before the process is not ready, in seconds.
        metrics: Returns the text of ``/metrics``.
        look: Awaited before ``/readyz`` reads the health.
    """

    def __init__(
        self,
        observed: Observed,
        port: int,
        *,
        host: str = LOOPBACK,
        stale_after_s: float = 15.0,
        metrics: Callable[[], bytes] | None = None,
        look: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self.port, self.host = port, host
        self._observed = observed
        self._stale_after_s = stale_after_s
        self._metrics, self._look = metrics, look
        self._server: Server | None = None
        self._listening: socket.socket | None = None
        self._serving: asyncio.Task[None] | None = None

    async def __aenter__(self) -> HealthServer:
        if self.port:
            try:
                self._listening = bound(self.host, self.port)
            except OSError as error:
                _warn(self.host, self.port, error)
            self._server = self._made()
            self._serving = asyncio.create_task(self._serve(self._server), name="health")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is None or self._serving is None:
            return
        self._server.should_exit = True
        if self._listening is None:
            self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)

    async def _serve(self, server: Server) -> None:
        """Serve the pages. If the port is taken, wait until it is free: a relay that is being replaced releases it."""
        while self._listening is None:
            await asyncio.sleep(TRY_AGAIN_S)
            with contextlib.suppress(OSError):
                self._listening = bound(self.host, self.port)
        with contextlib.closing(self._listening):
            await server.serve([self._listening])

    def _made(self) -> Server:
        return make_server(
            self._app(),
            receive_timeout_s=TIMEOUT_S,
            send_timeout_s=TIMEOUT_S,
            keep_alive_s=int(TIMEOUT_S),
            grace_s=1,
            connections=CONNECTIONS,
        )

    def _app(self) -> Starlette:
        routes = [("/healthz", self._healthz), ("/readyz", self._readyz), ("/metrics", self._metrics_text)]
        rate = Rate(REQUESTS_PER_S, REQUESTS_AT_ONCE)
        app = Starlette(routes=[Route(path, _limited(rate, answer)) for path, answer in routes])
        app.router.redirect_slashes = False  # a redirect would repeat the caller's Host
        return app

    async def _healthz(self, _: Request) -> Response:
        return JSONResponse({"status": "ok", "loop_age_s": round(self._observed.health().loop_age_s, 3)})

    async def _readyz(self, _: Request) -> Response:
        if self._look is not None:
            await self._look()
        health = self._observed.health()
        sources = _said(health, SOURCES)
        ready = all(sources.values()) and health.loop_age_s < self._stale_after_s
        body = {
            "ready": ready,
            **sources,
            "loop_age_s": round(health.loop_age_s, 3),
            **_said(health, ("owns",)),
            "detail": SEE_THE_LOG if health.detail else "",
        }
        return JSONResponse(body, status_code=200 if ready else 503)

    async def _metrics_text(self, _: Request) -> Response:
        if self._metrics is None:
            return Response("nothing is counted here\n", status_code=404)
        return Response(self._metrics(), headers={"content-type": PROMETHEUS})


def _said(health: Health, names: Sequence[str]) -> dict[str, Any]:
    """Return the fields with these names, if the health has them."""
    return {name: getattr(health, name) for name in names if hasattr(health, name)}


def _warn(host: str, port: int, error: OSError) -> None:
    """Warn that the pages cannot be served, and continue: delivering matters more."""
    log.warning(
        "health_port_unavailable",
        host=host,
        port=port,
        reason=f"{error.strerror or error}; the relay tries again",
        hint="set OUTBOX_HEALTH_HOST and OUTBOX_HEALTH_PORT to a free address of this machine, or the port "
        "to 0 for no health page",
    )


def _limited(rate: Rate, answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Return the page as it is served: never cached, and at a limited rate for each client.

    The rate is limited because the event loop that serves the page also delivers.
    """

    async def respond(request: Request) -> Response:
        client = client_of(request.client.host) if request.client else ""
        if wait_s := rate.take(client, monotonic()):
            headers = {"retry-after": str(wait_s), "connection": "close"}
            response = Response("too many requests\n", status_code=429, headers=headers)
        else:
            response = await answer(request)
        response.headers["cache-control"] = "no-store"
        return response

    return respond
