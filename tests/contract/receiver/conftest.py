"""A receiver to call, and the audit of the calls."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict
from support.databases import Database
from support.receiving import OLD, SECRET, extracted
from support.serving import calling

from listeners.http import Receiver


@pytest.fixture
async def client(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """Calls a receiver that runs the baseline listener; one content is extracted."""
    extracted(database)
    async with calling(Receiver([SECRET, OLD], database=database.url), database.url) as client:
        yield client


@pytest.fixture
def calls() -> Iterator[list[EventDict]]:
    """The audit's records, as they come."""
    with capture_logs() as records:
        yield records
