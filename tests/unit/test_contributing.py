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
