"""docs/contributing.md says which folders a new database needs: with them alone, it delivers a message.

The new database is SQLite, under another name of SQLAlchemy's.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from shape import PACKAGES

PROJECT = Path(__file__).parents[2]
NAMED = re.compile(r'(relay\.databases\.|outbox\.writing\.dialects\.|drivername="|DueIn, ")sqlite')

# What an author of a database has from the packages of SQLAlchemy and Alembic.
PRETEND = """
from alembic.ddl.sqlite import SQLiteImpl
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

class Pretend(SQLiteDialect_pysqlite):
    name = "pretend"
    supports_statement_cache = True

class PretendImpl(SQLiteImpl):
    __dialect__ = "pretend"

registry.register("pretend", "pretend", "Pretend")
"""
LISTENER = """
def on_read(message):
    print("received", message.data)
"""
SETTINGS = """
health_port = 0
[destinations.reader]
kind = "listener"
listener = "reader:on_read"
"""


def folders_to_add() -> list[str]:
    """Return the folders that the page names in its list of what to add."""
    page = (PROJECT / "docs" / "contributing.md").read_text()
    return re.findall(r"^\d\. `([\w/]+)/<name>/`", page, re.MULTILINE)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The project with the database `pretend`: the folders of `sqlite` were copied, and nothing else was changed."""
    for name in (*PACKAGES, "alembic"):
        shutil.copytree(PROJECT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in folders_to_add():
        added = shutil.copytree(tmp_path / folder / "sqlite", tmp_path / folder / "pretend")
        for path in added.rglob("*.py"):
            path.write_text(NAMED.sub(r"\1pretend", path.read_text()))
    for name, content in (("pretend.py", PRETEND), ("reader.py", LISTENER), ("outbox.toml", SETTINGS)):
        (tmp_path / name).write_text(content)
    return tmp_path


def test_a_database_needs_two_new_folders_and_no_other_change_of_the_product(copied: Path) -> None:
    assert len(folders_to_add()) == 2

    def outbox(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-c", "import pretend; from outbox_cli import main; main()", *arguments],
            cwd=copied,
            env={**os.environ, "PYTHONPATH": str(copied), "DATABASE_URL": f"pretend:///{copied}/outbox.db"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert outbox("db", "upgrade").split() == ["content_0001", "outbox_0001"]
    assert "CREATE TABLE outbox_message" in outbox("db", "sql", "--dialect", "pretend")
    outbox("emit", "page.read", '{"page": 7}')
    assert "received {'page': 7}" in outbox("relay", "--drain")
    assert '"waiting": 0' in outbox("status", "--json")
