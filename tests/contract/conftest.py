"""Fixtures of the contract tests."""

import pytest
from support.databases import Database
from support.results import Base
from support.scene import Scene


@pytest.fixture
def scene(database: Database) -> Scene:
    """Messages and relays on each database."""
    return Scene(database)


@pytest.fixture
def results(database: Database) -> Database:
    """Each database, with the table `results`."""
    Base.metadata.create_all(database.engine)
    return database
