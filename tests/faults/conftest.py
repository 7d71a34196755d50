"""Fixtures of the fault tests: a fleet of relays, and databases on private servers."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url
from support.databases import Database
from support.fleet import Fleet
from support.postgres import PostgresServer
from support.wire import Wire

from relay.databases.migrations import upgrade

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
def server(private_postgres: Callable[..., PostgresServer]) -> PostgresServer:
    """A PostgreSQL of the test's own, with our tables."""
    server = private_postgres()
    upgrade(server.url())
    return server


@pytest.fixture
def server_database(server: PostgresServer) -> Iterator[Database]:
    """The database on that server."""
    database = Database("postgres", server.url())
    yield database
    database.dispose()


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
