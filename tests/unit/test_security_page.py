"""docs/security.md promises nothing without a test, and no text sends anyone to a package that is not ours."""

import re
from pathlib import Path

PROJECT = Path(__file__).parents[2]
OURS = ("outbox", "relay", "listeners", "outbox_demo", "outbox_cli", "alembic", "docs")


def test_every_test_that_the_security_page_names_is_there() -> None:
    named = set(re.findall(r"`(tests/\S+?)`", (PROJECT / "docs" / "security.md").read_text()))
    assert len(named) > 10
    assert {each for each in named if not (PROJECT / each).is_file()} == set()


def test_no_text_advises_to_install_a_name_that_is_not_registered() -> None:
    """The owner of an unregistered name could take over the link."""
    texts = [PROJECT / "README.md", PROJECT / "SECURITY.md"]
    texts += [path for folder in OURS for path in (PROJECT / folder).rglob("*") if path.suffix in (".py", ".md")]
    advice = re.compile(r"(pip|uv|pipx|poetry|uvx) (\S+ )*?(install|add|run)( -\S+)* ['\"]?neverlost")
    assert {str(path) for path in texts if advice.search(path.read_text())} == set()
