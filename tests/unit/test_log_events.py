"""Every event that is logged has a name that a search finds, and a line in the documentation."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from shape import nodes_of

pytestmark = pytest.mark.xdist_group("sources")

ROOT = Path(__file__).parents[2]
PACKAGES = ("outbox", "relay", "listeners", "outbox_demo", "outbox_cli")
LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}


def first_arguments() -> Iterator[tuple[str, ast.expr]]:
    """Yield the position and the first argument of each log call."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "structlog.get_logger" in path.read_text():
                for call in nodes_of(path):
                    if isinstance(call, ast.Call) and is_logging(call):
                        yield f"{path.relative_to(ROOT)}:{call.lineno}", call.args[0]


def is_logging(call: ast.Call) -> bool:
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in LEVELS or not call.args:
        return False
    logger = ast.unparse(call.func.value)
    return logger in ("log", "audit") or "get_logger" in logger


def documented() -> set[str]:
    page = (ROOT / "docs" / "operations.md").read_text()
    _, _, section = page.partition("\n## What the log says\n")
    rows = re.findall(r"^\| ((?:`\w+`(?:, (?:or )?)?)+)", section.partition("\n## ")[0], re.MULTILINE)
    return {name for row in rows for name in re.findall(r"\w+", row) if re.fullmatch(r"[a-z_]+", name) and name != "or"}


def test_every_event_is_a_literal() -> None:
    composed = [where for where, name in first_arguments() if not isinstance(name, ast.Constant)]
    assert composed == []


def test_every_event_has_a_line_in_the_documentation_and_every_line_an_event() -> None:
    logged = {str(name.value) for _, name in first_arguments() if isinstance(name, ast.Constant)}
    assert len(logged) > 50
    assert documented() == logged
