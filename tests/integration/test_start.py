"""docs/start.md adds an outbox to a worker: its steps as printed, on both databases."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.databases import Database

PROJECT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TABLES = """
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase): ...

class Extraction(Base):
    __tablename__ = "extraction"
    content_id: Mapped[str] = mapped_column(primary_key=True)

class Report(Base):
    __tablename__ = "report"
    content_id: Mapped[str] = mapped_column(primary_key=True)
"""
WORKER = """
import os
from sqlalchemy import create_engine
from my_app.tables import Base, Extraction

engine = create_engine(os.environ["WORKER_URL"])
Base.metadata.create_all(engine)
{emit}
"""
TEST = """
from my_app.tables import Base
from my_app.reports import on_completed
{test}

def finish_extraction(engine, content_id):
    from outbox import emit
    from sqlalchemy.orm import Session

    with Session(engine) as session, session.begin():
        emit(session, "extraction.completed", {{"contentId": content_id}}, ordering_key=content_id)
"""


@pytest.fixture
def application(tmp_path: Path) -> Path:
    """A worker, a listener, its tests and the configuration, with what the page prints."""
    printed = BLOCK.findall((PROJECT / "docs" / "start.md").read_text())
    _, emit, listener, test = (text for kind, text in printed if kind == "python")
    (tmp_path / "my_app").mkdir()
    for name, text in {
        "my_app/tables.py": TABLES,
        "my_app/reports.py": listener,
        "worker.py": WORKER.format(emit=emit),
        "test_worker.py": TEST.format(test=test),
        "outbox.toml": next(text for kind, text in printed if kind == "toml"),
    }.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def _run(folder: Path, *command: str, **environ: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(folder), **environ}
    done = subprocess.run([sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_first_message_is_delivered_by_the_steps_of_the_page(empty_database: Database, application: Path) -> None:
    worker_url = empty_database.engine.url.render_as_string(hide_password=False)
    urls = {"DATABASE_URL": empty_database.url, "WORKER_URL": worker_url}

    def outbox(*arguments: str) -> str:
        return _run(application, "-m", "outbox_cli", *arguments, **urls)

    outbox("db", "upgrade", "--only", "outbox")
    _run(application, "worker.py", **urls)
    outbox("config", "check")
    outbox("destinations", "test", "reports")
    assert "delivered 1 message\n" in outbox("relay", "--drain")
    assert empty_database.scalar("SELECT content_id FROM report") == "c-1"


def test_the_test_of_the_page_passes(application: Path) -> None:
    assert "1 passed" in _run(application, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_worker.py")
