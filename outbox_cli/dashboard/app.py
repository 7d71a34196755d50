"""The page and how it is served: no script, no cookie, nothing that can be changed, and nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import HTMLResponse

from outbox.errors import Unusable
from outbox_cli.dashboard.page import STYLE_HASH, page, trouble
from outbox_cli.dashboard.picture import Camera
from relay.settings import Settings

HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src '{STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def create_app(settings: Settings, *, hosts: Sequence[str], refresh_s: int) -> FastAPI:
    """The dashboard.

    Args:
        settings: Which database.
        hosts: The names it answers to: a page elsewhere that gave its own name to this address gets nothing.
        refresh_s: How often the page loads itself again.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    camera = Camera(settings)

    @app.get("/", response_class=HTMLResponse)
    def look() -> HTMLResponse:
        try:
            picture = camera.picture()
        except Unusable as error:
            return HTMLResponse(trouble(str(error), refresh_s), status_code=503, headers=HEADERS)
        return HTMLResponse(page(picture, refresh_s), headers=HEADERS)

    return app
