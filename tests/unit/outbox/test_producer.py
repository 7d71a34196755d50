"""What `emit` says before it writes: its signature in help(); a misspelt option or another database is an error."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from outbox import Draft, InvalidTarget, emit
from outbox.draft import Options


def test_the_signature_of_emit_names_each_option_with_the_default_of_a_draft() -> None:
    named = {name: each for name, each in inspect.signature(emit).parameters.items() if each.kind is each.KEYWORD_ONLY}
    defaults = {each.name: each.default for each in fields(Draft)}
    assert named.keys() == Options.__annotations__.keys()
    assert {name: each.default for name, each in named.items()} == {name: defaults[name] for name in named}


def test_an_option_that_does_not_exist_is_told_of_emit() -> None:
    misspelt: dict[str, Any] = {"orderingkey": "c-1"}
    with pytest.raises(TypeError, match=r"emit\(\) got an unexpected keyword argument 'orderingkey'"):
        emit(None, "extraction.completed", {}, **misspelt)  # type: ignore[call-overload]


class OfAnotherMaker(SQLiteDialect_pysqlite):
    """A real database whose name is not one of ours."""

    name = "another"
    supports_statement_cache = False


def test_a_connection_to_a_database_that_cannot_hold_an_outbox_is_refused_by_name() -> None:
    registry.register("another.pysqlite", __name__, "OfAnotherMaker")
    engine = sa.create_engine("another+pysqlite://")
    with engine.begin() as connection, pytest.raises(InvalidTarget, match=r"PostgreSQL or SQLite, .* to another:"):
        emit(connection, "extraction.completed", {})
    engine.dispose()
