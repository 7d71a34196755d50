"""Every event that is logged has a name that a search finds, and a line in the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from support.sources import PACKAGES, ROOT, facts_of, sources_of

pytestmark = pytest.mark.xdist_group("sources")


def events() -> Iterator[tuple[str, str | None]]:
    """Yield the position of each log call and its event: None if that is no literal."""
    for package in PACKAGES:
        for path in sources_of(package):
            if "structlog.get_logger" in path.read_text():
                for line, event in facts_of(path).logged:
                    yield f"{path.relative_to(ROOT)}:{line}", event


def documented() -> set[str]:
    page = (ROOT / "docs" / "operations.md").read_text()
    _, _, section = page.partition("\n## What the log says\n")
    rows = re.findall(r"^\| ((?:`\w+`(?:, (?:or )?)?)+)", section.partition("\n## ")[0], re.MULTILINE)
    return {name for row in rows for name in re.findall(r"\w+", row) if re.fullmatch(r"[a-z_]+", name) and name != "or"}


def test_every_event_is_a_literal() -> None:
    composed = [where for where, event in events() if event is None]
    assert composed == []


def test_every_event_has_a_line_in_the_documentation_and_every_line_an_event() -> None:
    logged = {event for _, event in events() if event is not None}
    assert len(logged) > 50
    assert documented() == logged
