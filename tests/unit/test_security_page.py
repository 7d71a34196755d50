"""docs/security.md promises nothing without a test, and no text sends anyone to a package that is not ours."""

import re
from pathlib import Path

PROJECT = Path(__file__).parents[2]
OURS = ("outbox", "relay", "listeners", "outbox_demo", "outbox_cli", "alembic", "docs")
READ = (".py", ".md", ".html", ".sql")


def test_every_test_that_the_security_page_names_is_there() -> None:
    named = set(re.findall(r"`(tests/\S+?)`", (PROJECT / "docs" / "security.md").read_text()))
    assert len(named) > 10
    assert {each for each in named if not (PROJECT / each).is_file()} == set()


def test_no_text_advises_to_install_a_name_that_is_not_registered() -> None:
    """Anyone who registers the name would run code on the machines of those who follow such a text."""
    texts = [PROJECT / "README.md", PROJECT / "SECURITY.md"]
    texts += [path for folder in OURS for path in (PROJECT / folder).rglob("*") if path.suffix in READ]
    advice = re.compile(r"(pip|uv|pipx|poetry|uvx) (\S+ )*?(install|add|run)(\s+-\S+)*\s+['\"`]?neverlost")
    seen = ("pip install -U neverlost", "pip install\n'neverlost[demo]'", "uv add neverlost")
    assert all(map(advice.search, seen)), "the check sees such a text"
    assert {str(path) for path in texts if advice.search(path.read_text())} == set()
