"""A server whose advisory locks lock nothing is refused, by name, before anything is asked of it."""

import pytest
from support.commands import Run
from support.databases import Database
from support.desk import Desk

from outbox.errors import Unusable

SENTENCE = "the server is CockroachDB, whose advisory locks lock nothing"


@pytest.fixture
def posing(postgres_database: Database) -> Database:
    """A PostgreSQL that says it is CockroachDB: only its answer to `version()` differs."""
    name = postgres_database.url.rpartition("/")[2]
    for statement in (
        "CREATE SCHEMA posing",
        "CREATE FUNCTION posing.version() RETURNS text LANGUAGE sql AS $$ SELECT 'CockroachDB CCL v24.1.3' $$",
        f'ALTER DATABASE "{name}" SET search_path = posing, pg_catalog, public',
    ):
        postgres_database.execute(statement)
    return postgres_database


def test_no_relay_owns_anything_there(posing: Database) -> None:
    with pytest.raises(Unusable, match=SENTENCE):
        Desk(posing).open()


@pytest.mark.parametrize("command", [("relay", "--drain"), ("status",), ("doctor",), ("db", "upgrade")])
def test_every_command_says_so_and_exits_with_3(posing: Database, run: Run, command: tuple[str, ...]) -> None:
    ended = run(*command, url=posing.url)
    assert ended.returncode == 3, ended.report()
    assert SENTENCE in ended.stderr
    assert "Traceback" not in ended.stderr
