"""The application that `outbox serve` runs: the receiver, and its health."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from time import monotonic
from typing import ClassVar

import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from listeners.http.receiver import Receiver
from outbox import OutboxError, __version__
from relay.databases.database import Database
from relay.databases.schema import check_schema
from relay.observe.text import shown

REMEMBERED_S = 1.0  # any client may ask for readiness, but the database is asked at most this often
TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Ready:
    """Whether calls can be taken, and if not, the reason."""

    loop_age_s: ClassVar[float] = 0.0  # the event loop itself answers

    ready: bool
    detail: str = ""

    @property
    def database(self) -> bool:
        """Whether the database and its schema can be used. A receiver needs nothing else."""
        return self.ready


def create_app(receiver: Receiver, database: Database, *, readiness: Readiness | None = None) -> FastAPI:
    """Return an application with the receiver's endpoint, ``/healthz`` and ``/readyz``, and its OpenAPI document.

    Args:
        receiver: Takes the calls.
        database: The database whose schema the receiver needs to be ready.
        readiness: Checks the database; pass an object to share it with other pages.
    """
    # A redirect to or from a trailing slash would repeat the caller's Host. FastAPI's own documentation pages load
    # scripts from other servers: without Internet access they stay empty, and with it they are a risk.
    app = FastAPI(
        title="neverlost receiver", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.include_router(receiver.router)
    known = readiness or Readiness(database)

    @app.get("/healthz", summary="Is the process alive?")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="Can calls be taken?", response_model=Ready, responses={503: {"model": Ready}})
    async def readyz() -> JSONResponse:
        found = await known.look()
        return JSONResponse(asdict(found), 200 if found.ready else 503, {"Cache-Control": "no-store"})

    return app


class Readiness:
    """The database's last answer, renewed when it is a second old.

    Args:
        database: The database to check.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = asyncio.Lock()
        self._known = Ready(ready=False)
        self._until = 0.0

    def health(self) -> Ready:
        """Return the last result of `look`, for the pages of `relay.observe.health`."""
        return self._known

    async def look(self) -> Ready:
        async with self._lock:
            if monotonic() >= self._until:
                self._known = await self._ask()
                self._until = monotonic() + REMEMBERED_S
            return self._known

    async def _ask(self) -> Ready:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await asyncio.to_thread(self._check)
        except TimeoutError:
            return Ready(ready=False, detail=f"the database does not answer within {TIMEOUT_S:g} s")
        except (OutboxError, sa.exc.SQLAlchemyError) as error:
            return Ready(ready=False, detail=shown(error)[:200])
        return Ready(ready=True)

    def _check(self) -> None:
        with self._database.short_engine() as engine, engine.connect() as connection:
            check_schema(connection)
