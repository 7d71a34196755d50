"""Find imports of distributions that pyproject.toml does not name: they are present by chance, in any version."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Set
from functools import cache
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[2]
OURS = ("outbox", "relay", "listeners", "outbox_demo", "outbox_cli")


def undeclared_imports() -> list[str]:
    """Return the foreign modules that the product imports without a declared dependency."""
    declared, distributions_of = _declared(), packages_distributions()
    return sorted(
        module
        for module in foreign_modules()
        if declared.isdisjoint(map(_normal, distributions_of.get(module, [module])))
    )


@cache
def foreign_modules() -> Set[str]:
    """Return the top-level modules that the product imports, except its own and those of the standard library."""
    sources = [file for folder in (*OURS, "alembic") for file in (ROOT / folder).rglob("*.py")]
    named = {name.partition(".")[0] for file in sources for name in _imported_in(file)}
    return named - sys.stdlib_module_names - {*OURS}


def _imported_in(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module


def _declared() -> set[str]:
    """Return the distributions that pyproject.toml requires, with and without extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = chain(project["dependencies"], *project["optional-dependencies"].values())
    return {_normal(re.match(r"[A-Za-z0-9._-]+", each)[0]) for each in wanted}  # type: ignore[index]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
