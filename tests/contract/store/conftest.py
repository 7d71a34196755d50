"""A desk, which opens a relay's sessions, on each database in turn, or on one of them."""

from collections.abc import Iterator

import pytest
from support.databases import Database
from support.desk import Desk


@pytest.fixture
def desk(database: Database) -> Iterator[Desk]:
    with Desk(database) as desk:
        yield desk


@pytest.fixture
def pg(postgres_database: Database) -> Iterator[Desk]:
    with Desk(postgres_database) as desk:
        yield desk


@pytest.fixture
def lite(sqlite_database: Database) -> Iterator[Desk]:
    with Desk(sqlite_database) as desk:
        yield desk
