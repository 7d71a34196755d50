"""The dashboard as an ASGI application, to be served alone or mounted in another application."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

import outbox
from outbox.errors import OutboxError, Unusable
from outbox_cli.dashboard.access import Access, Refused, TooManyTries
from outbox_cli.dashboard.access.people import Who
from outbox_cli.dashboard.guard import Guard
from outbox_cli.dashboard.jobs import Busy
from outbox_cli.dashboard.routes import content, dead, destinations, entrance, messages, overview
from outbox_cli.dashboard.site import Site, site_of
from relay.admin.access.deadline import TooMuch
from relay.settings import Settings

ABOUT = "What the dashboard shows and does, as JSON. Send the token as `Authorization: Bearer …`."


def create_app(
    settings: Settings,
    *,
    who: Who | None = None,
    access: Access | None = None,
    hosts: Sequence[str] | None = None,
    refresh_s: float = 1.0,
    load_settings: Callable[[], Settings] | None = None,
) -> FastAPI:
    """Return the dashboard application.

    Pass `who` to mount it in an application with its own login, or `access` to let the dashboard ask for a token.

    Args:
        settings: The settings of the database.
        who: Returns the person behind a request, with the permission to change; ``None`` refuses the request.
        access: The access rules, if the dashboard itself asks for a token.
        hosts: The host names that it answers to; ``None``: any name, if the host application has checked it.
        refresh_s: The time between two reads of the database for all open pages, in seconds; at least 1.
        load_settings: Returns the destinations of this host, to test them and to report differences.

    Raises:
        ValueError: Neither `who` nor `access` is given, so there would be no access check.

    Example:
        >>> from outbox_cli.dashboard import Person, create_app
        >>> def who(request):
        ...     user = request.session.get("user")
        ...     return Person(user["name"], may_change=user["is_admin"]) if user else None
        >>> app.mount("/outbox", create_app(settings, who=who))  # doctest: +SKIP
    """
    if (who is None) == (access is None):
        raise ValueError("give either who, which knows your users, or access, which asks for a token")
    rules = access if access is not None else Access(who=who)
    rules.cookie = f"outbox_{hashlib.sha256(str(settings.database).encode()).hexdigest()[:8]}"
    site = Site(settings, rules, refresh_s=refresh_s, load_settings=load_settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(site.warm_up)
        yield
        site.close()

    app = FastAPI(
        title="neverlost",
        version=outbox.__version__,
        description=ABOUT,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.site = site
    app.add_middleware(Guard, hosts=hosts)
    for part in (entrance, overview, messages, dead, destinations, content):
        app.include_router(part.router)
    _explain(app)
    return app


def _explain(app: FastAPI) -> None:
    """Answer errors with a sentence, as a page or as JSON."""

    def explain(request: Request, error: Exception) -> Response:
        status, said, headers = _explained(error)
        if isinstance(error, Refused) and status == 401 and not _wants_json(request):
            site = site_of(request)
            if site.access.has_login:
                return site.goto(request, entrance.login_address(request))
        if _wants_json(request):
            return JSONResponse({"detail": said}, status, headers)
        answer = site_of(request).render(request, "trouble.html", status=status, said=said)
        answer.headers.update(headers)
        return answer

    for kind in (HTTPException, RequestValidationError, Refused, OutboxError, TooMuch, Busy):
        app.add_exception_handler(kind, explain)


def _explained(error: Exception) -> tuple[int, str, dict[str, str]]:
    match error:
        case HTTPException():
            return error.status_code, str(error.detail), dict(error.headers or {})
        case RequestValidationError():
            first = error.errors()[0]
            return 422, f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}", {}
        case TooManyTries():
            return 429, str(error), {"Retry-After": str(error.wait_s)}
        case Refused():
            return error.status, str(error), {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
        case Unusable() | TooMuch():
            return 503, str(error), {"Retry-After": "2"}
        case Busy():
            return 409, str(error), {"Retry-After": "2"}
    return 409, str(error), {}


def _wants_json(request: Request) -> bool:
    path = request.scope["path"]
    return path.endswith((".json", ".svg")) or "authorization" in request.headers
