"""Fixtures of the contract tests."""

import pytest
from support.databases import Database
from support.scene import Scene


@pytest.fixture
def scene(database: Database) -> Scene:
    """Messages and relays on each database."""
    return Scene(database)
