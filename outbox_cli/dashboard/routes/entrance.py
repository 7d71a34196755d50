"""Login and logout, static files, and the description of the API."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

from fastapi import APIRouter, Depends, HTTPException, Request
from starlette.responses import FileResponse, JSONResponse, Response

from outbox_cli.dashboard.access import Refused
from outbox_cli.dashboard.access.people import SESSION_LENGTH_S, is_of_own_origin
from outbox_cli.dashboard.rendering import STATIC
from outbox_cli.dashboard.routes.answering import Viewer, given
from outbox_cli.dashboard.site import site_of

router = APIRouter(include_in_schema=False)

A_YEAR = "public, max-age=31536000, immutable"
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@router.get("/login")
def login(request: Request, to: str = "/") -> Response:
    site = site_of(request)
    if not site.access.has_login:
        raise HTTPException(404, "the host application logs people in")
    return site.render(request, "login.html", to=own_path(to), trouble=None)


@router.post("/login")
def log_in(request: Request, told: Annotated[dict[str, Any], Depends(given)]) -> Response:
    site = site_of(request)
    to = own_path(str(told.get("to", "/")))
    if not site.access.has_login or not is_of_own_origin(request):
        raise HTTPException(403, "another page sent this")
    try:
        session = site.access.log_in(request, str(told.get("token", "")), str(told.get("name", "")))
    except Refused as error:
        return site.render(request, "login.html", status=error.status, to=to, trouble=str(error))
    answer = site.goto(request, to)
    answer.set_cookie(
        site.access.cookie,
        session.id,
        max_age=SESSION_LENGTH_S,
        path=request.scope.get("root_path", "") or "/",
        httponly=True,
        samesite="strict",
        secure=site.access.is_secure(request),
    )
    return answer


@router.post("/logout")
def log_out(request: Request, person: Viewer, told: Annotated[dict[str, Any], Depends(given)]) -> Response:
    site = site_of(request)
    site.access.require_own_page(request, person, str(told.get("csrf", "")))
    site.access.log_out(request)
    answer = site.goto(request, "/login")
    answer.delete_cookie(site.access.cookie, path=request.scope.get("root_path", "") or "/")
    return answer


@router.get("/static/{version}/{path:path}")
def static(version: str, path: str) -> Response:
    """Return a static file. The version in the address changes with the files, so browsers may keep them."""
    wanted = PurePosixPath(path)
    known = {PurePosixPath(each.relative_to(STATIC).as_posix()): each for each in STATIC.rglob("*") if each.is_file()}
    if wanted not in known or wanted.suffix not in TYPES:
        raise HTTPException(404, "this file does not exist")
    return FileResponse(known[wanted], media_type=TYPES[wanted.suffix], headers={"Cache-Control": A_YEAR})


@router.get("/openapi.json")
def openapi(request: Request, _person: Viewer) -> Response:
    return JSONResponse(request.app.openapi())


def own_path(to: str) -> str:
    """Return a path of this dashboard for any address, so that a login never leads to another site."""
    parts = urlsplit(to)
    is_ours = to.startswith("/") and not to.startswith(("//", "/\\")) and not parts.netloc and "\\" not in to
    return to if is_ours and to.isprintable() else "/"


def login_address(request: Request) -> str:
    """Return the address of the login, which leads back to this page."""
    root = request.scope.get("root_path", "")
    path = request.url.path.removeprefix(root) or "/"
    query = f"?{request.url.query}" if request.url.query else ""
    return f"/login?to={quote(path + query)}"
