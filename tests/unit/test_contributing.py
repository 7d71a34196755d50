"""docs/contributing.md leads a newcomer to files that exist."""

import re
from pathlib import Path

PROJECT = Path(__file__).parents[2]
FOLDERS = "outbox|relay|listeners|outbox_demo|outbox_cli|alembic|tests"


def test_every_path_of_the_tasks_exists() -> None:
    page = (PROJECT / "docs" / "contributing.md").read_text()
    named = set(re.findall(rf"`((?:{FOLDERS})/[\w/.]*)`", page))
    assert len(named) > 20
    assert [path for path in sorted(named) if not (PROJECT / path).exists()] == []


def test_a_database_takes_two_new_folders_and_two_changed_files() -> None:
    """`tests/integration/test_new_database.py` shows that the folders are enough."""
    page = (PROJECT / "docs" / "contributing.md").read_text()
    section = page.partition("### Add a database dialect\n")[2].partition("\n### ")[0]
    assert re.findall(r"^\d\. `([^`]+)`", section, re.MULTILINE) == [
        "outbox/writing/dialects/<name>/",
        "relay/databases/<name>/",
        "pyproject.toml",
        "tests/support/databases.py",
    ]
