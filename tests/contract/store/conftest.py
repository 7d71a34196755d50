"""A desk, which opens a relay's sessions, on each database in turn, or on one of them."""

from collections.abc import Iterator

import pytest
from support.databases import Database
from support.desk import Desk


@pytest.fixture
def desk(database: Database) -> Iterator[Desk]:
    yield from _closing(Desk(database))


@pytest.fixture
def pg(postgres_database: Database) -> Iterator[Desk]:
    yield from _closing(Desk(postgres_database))


@pytest.fixture
def lite(sqlite_database: Database) -> Iterator[Desk]:
    yield from _closing(Desk(sqlite_database))


def _closing(desk: Desk) -> Iterator[Desk]:
    yield desk
    for session in desk.sessions:
        session.close()
