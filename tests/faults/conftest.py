"""Fixtures of the fault tests: a fleet of relays, and databases on private servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url
from support.databases import Database
from support.fleet import Fleet
from support.wire import Wire

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.faults)


@pytest.fixture
def wire(postgres_database: Database) -> Iterator[Wire]:
    """A proxy to the test's PostgreSQL that the test can cut and hold."""
    wire = Wire(make_url(postgres_database.url).port or 0)
    try:
        yield wire
    finally:
        wire.close()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Relays that record what they send; pytest shows their output when the test fails."""
    fleet = Fleet(tmp_path)
    try:
        yield fleet
    finally:
        try:
            print(fleet.report())
        finally:
            fleet.end_all()
