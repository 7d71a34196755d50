"""Helpers for an adopter's tests: see which messages a piece of code emitted, and deliver them to a listener.

With pytest, name this module as a plugin in the top-level ``conftest.py`` and use the fixture ``outbox_emitted``::

    pytest_plugins = ["outbox.testing"]

Without pytest, use the context manager ``capture()``. The fixture ``outbox_emptied`` empties the outbox of a database:
define a fixture ``outbox_database`` that returns a URL, an engine or a connection. ``empty()`` does the same without
pytest. ``outbox.tables.metadata().create_all(engine)`` creates the tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from outbox.testing.capturing import Captured, Emitted, State, capture
from outbox.testing.draining import Destinations, drain, drain_async
from outbox.testing.emptying import empty

__all__ = ["Captured", "Destinations", "Emitted", "State", "capture", "drain", "drain_async", "empty"]

try:
    import pytest
except ImportError:  # capture() and drain() work without pytest
    pass
else:

    @pytest.fixture
    def outbox_emitted() -> Iterator[Emitted]:
        """Record what the test's code emits, as ``capture()`` does."""
        with capture() as emitted:
            yield emitted

    @pytest.fixture
    def outbox_emptied(outbox_database: str | sa.URL | sa.Engine | sa.Connection) -> Any:
        """Empty the outbox before a test; return what the adopter's fixture ``outbox_database`` returned."""
        empty(outbox_database)
        return outbox_database
