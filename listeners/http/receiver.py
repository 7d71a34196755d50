"""The endpoint of the integration guide, as a router: mount it in your own application, or run `outbox serve`.

Every call goes through the same checks in the same order; the first check that fails determines the answer: size (413),
time (408), rate (429), secret and signature (401), content type (415), JSON (400), schema (422), the handler's
rejection (422). The answer ``{"success": true}`` means that the handler's transaction is committed; after a 500 it is
rolled back. Each event of a batch has its own transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic, time
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI, Request, Response, Security
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader
from starlette.datastructures import Headers

from listeners.http import events
from listeners.http.body import read_body
from listeners.http.documentation import RESPONSES, Success, operation
from listeners.http.guard import Guard, LogRate
from listeners.http.refusal import Refusal, unauthorized
from listeners.http.signature import Verifier
from outbox import Message, Reject
from outbox.errors import SettingsError
from relay.databases.database import Database
from relay.destinations.http.signing import signing_key
from relay.destinations.listener.calling import how_to_call
from relay.destinations.listener.destination import ListenerDestination
from relay.destinations.listener.loading import load
from relay.destinations.listener.transaction.commit_gate import Overran
from relay.observe import process
from relay.observe.logging import plain_trace
from relay.platform.guide import BASELINE_LISTENER, CONTENT_ID, PATH
from relay.serving import client_of
from relay.serving.rate import Rate

NAME = "http"
LARGE_BYTES = 16 * 1024

audit = structlog.get_logger("audit")
log = structlog.get_logger("receiver")


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a receiver.

    Args:
        max_body_bytes: The size of a request, in bytes.
        receive_timeout_s: How long reading a body may take, in seconds.
        rate_per_s: Calls per second that one client that knows the secret may make, on average; twice as many may come
            at once.
        stranger_rate_per_s: Calls per second that one client that does not know the secret may make. They are counted
            separately, so an attacker who guesses secrets from the real sender's address does not block that sender.
        stranger_burst: How many such calls may come at once.
        content_id_pattern: The pattern that a whole content id must match.
        content_id_length: The maximum number of characters that a content's id may have.
        concurrency: Calls of the handler at the same time.
        handler_timeout_s: How long one call may take, in seconds, including the wait for its turn; ``None``: no limit.
    """

    max_body_bytes: int = 1024 * 1024
    receive_timeout_s: float = 10.0
    rate_per_s: float = 500.0
    stranger_rate_per_s: float = 1.0
    stranger_burst: int = 20
    content_id_pattern: str = CONTENT_ID
    content_id_length: int = events.CONTENT_ID_LENGTH
    concurrency: int = 16
    handler_timeout_s: float | None = 30.0


class Receiver:
    """Receives ``extraction.completed`` events and calls a handler once for each.

    Args:
        secrets: The accepted values of ``X-Internal-Secret``: the current secret, and the previous one during rotation.
        handler: A listener as for a relay's destination, or its name: ``"module:callable"``. With a second parameter
            annotated ``Session`` or ``AsyncSession`` it gets a session that is committed with the inbox mark. Without a
            session it is called for duplicates too, and has to recognise them itself.
        database: The database of that session.
        signing_secrets: The keys of signatures, as ``whsec_…``; default: the bytes of the secrets.
        require_signature: Refuse calls without a signature. A signature that is sent must always be right.
        allow_weak_secret: Accept secrets of less than 32 characters.
        limits: The limits of size, time, rate and concurrency.
        name: The name of this receiver in the inbox.

    Attributes:
        router: The router to mount.

    Raises:
        SettingsError: A secret is missing or weak, or the handler cannot be used.

    Example:
        >>> receiver = Receiver(["0123456789abcdef" * 4], database="sqlite:///outbox.db")
        >>> app = FastAPI()
        >>> app.include_router(receiver.router)
    """

    def __init__(
        self,
        secrets: Iterable[str],
        *,
        handler: str | Callable[..., Any] = BASELINE_LISTENER,
        database: str | Database | None = None,
        signing_secrets: Iterable[str] = (),
        require_signature: bool = False,
        allow_weak_secret: bool = False,
        limits: Limits | None = None,
        name: str = NAME,
    ) -> None:
        known = list(secrets)
        self._limits = limits = limits or Limits()
        self._guard = Guard(known, allow_weak=allow_weak_secret)
        self._verifier = Verifier(_keys(signing_secrets) or [s.encode() for s in known], required=require_signature)
        self._known_rate = Rate(limits.rate_per_s, max(int(2 * limits.rate_per_s), 1))
        self._stranger_rate = Rate(limits.stranger_rate_per_s, limits.stranger_burst)
        self._lines = LogRate()
        self._model = events.event_with(limits.content_id_pattern, limits.content_id_length)
        self._work = _work(name, handler, database, limits.concurrency)
        self.router = self._router()

    async def close(self) -> None:
        """Close the database connections. An application that mounts the router calls this when it ends."""
        await self._work.close()

    def _router(self) -> APIRouter:
        @asynccontextmanager
        async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
            yield
            await self.close()

        router = APIRouter(lifespan=lifespan)
        scheme = APIKeyHeader(name="X-Internal-Secret", scheme_name="InternalSecret", auto_error=False)
        router.add_api_route(
            PATH,
            self._receive,
            methods=["POST"],
            summary="Take extraction.completed",
            response_model=Success,
            responses=RESPONSES,
            openapi_extra=operation(self._model),
            dependencies=[Security(scheme)],
        )
        return router

    async def _receive(self, request: Request) -> Response:
        started = monotonic()
        admitted = self._guard.admits(_raw(request, b"x-internal-secret"))
        refusal: Refusal | None = None
        count = 0
        try:
            count = await self._take(request, admitted=admitted)
        except Refusal as caught:
            refusal = caught
        except Exception:
            log.exception("receiver_broke")
            refusal = Refusal(500, "internal", "an internal error occurred: send the event again")
        took_s, status = monotonic() - started, refusal.status if refusal else 200
        process.request(PATH, status, took_s)
        client = _client(request)
        if not admitted and not self._lines.permit(client_of(client), monotonic()):
            return _response(refusal)
        audit.info(
            "call",
            client=client,
            event_id=events.event_id(request.headers),
            events=count,
            outcome="refused" if refusal else "taken",
            status=status,
            reason=refusal.reason if refusal else None,
            took_ms=round(took_s * 1000, 1),
            **self._lines.left_out(),
        )
        return _response(refusal)

    async def _take(self, request: Request, *, admitted: bool) -> int:
        """Make all checks in their order, then call the handler; return the number of events."""
        limits = self._limits
        body = await read_body(request, limit=limits.max_body_bytes, timeout_s=limits.receive_timeout_s, keep=admitted)
        self._check_rate(_client(request), admitted=admitted)
        if not admitted:
            raise unauthorized()
        if problem := self._verifier.problem(request.headers, body, time()):
            raise Refusal(401, problem, "Invalid signature", unauthorized().headers)
        kind = events.check_content_type(request.headers)
        messages = await self._parsed(kind, request.headers, body)
        for message in messages:
            await self._handle(message)
        return len(messages)

    async def _parsed(self, kind: str, headers: Headers, body: bytes) -> list[Message]:
        """Return the messages of a request. A large body is parsed in a thread, so other calls are not held up."""
        if len(body) > LARGE_BYTES:
            return await asyncio.to_thread(events.parse, kind, headers, body, self._model)
        return events.parse(kind, headers, body, self._model)

    def _check_rate(self, client: str, *, admitted: bool) -> None:
        rate = self._known_rate if admitted else self._stranger_rate
        if wait_s := rate.take(client_of(client), monotonic()):
            raise Refusal(429, "rate", f"too many calls: call again in {wait_s} s", {"Retry-After": str(wait_s)})

    async def _handle(self, message: Message) -> None:
        timeout_s = self._limits.handler_timeout_s
        try:
            await self._work.call(message, timeout_s)
        except Reject as rejection:
            reason = str(getattr(rejection, "code", "rejected"))
            raise Refusal(422, reason, "the event was rejected, and will be rejected again if it is resent") from None
        except Overran:
            log.warning("handler_overran", event_id=message.id, handler=self._work.label, timeout_s=timeout_s)
            raise Refusal(500, "handler_timeout", "the event was not handled in time: send it again") from None
        except Exception as error:
            log.exception("handler_failed", event_id=message.id, exc_info=False, exception=plain_trace(error))
            raise Refusal(500, "handler_failed", "the event could not be handled: send it again") from None


def _work(
    name: str, handler: str | Callable[..., Any], database: str | Database | None, concurrency: int
) -> ListenerDestination:
    if isinstance(database, str):
        database = Database.parse(database)
    handler = load(handler)
    if database is None:
        if how_to_call(handler).session is not None:
            raise SettingsError(f"the handler of {name} asks for a session: name the database that it connects to")
        database = Database.parse("sqlite:///never-opened.db")
    return ListenerDestination(name, handler, database=database, concurrency=concurrency)


def _keys(signing_secrets: Iterable[str]) -> list[bytes]:
    try:
        return [signing_key(text) for text in signing_secrets]
    except ValueError as error:
        raise SettingsError(f"a signing secret cannot be used: {error}") from None


def _response(refusal: Refusal | None) -> Response:
    return refusal.response() if refusal else JSONResponse({"success": True})


def _client(request: Request) -> str:
    return request.client.host if request.client else "unknown"


def _raw(request: Request, name: bytes) -> list[bytes]:
    return [value for known, value in request.headers.raw if known == name]
