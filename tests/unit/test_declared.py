"""Every import is declared as a dependency. Otherwise it is present by chance, in another package's version."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest
from shape import nodes_of

pytestmark = pytest.mark.xdist_group("sources")

PROJECT = Path(__file__).parents[2]
OURS = {"outbox", "relay", "listeners", "outbox_demo", "outbox_cli"}


def modules_imported_in(file: Path) -> set[str]:
    """Return the top-level modules that a source file imports, except the standard library's and ours."""
    named: set[str] = set()
    for node in nodes_of(file):
        if isinstance(node, ast.Import):
            named.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            named.add(node.module)
    return {name.partition(".")[0] for name in named} - sys.stdlib_module_names - OURS


def declared() -> set[str]:
    """Return the distributions that pyproject.toml requires, with and without extras."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    return {normalized(re.match(r"[A-Za-z0-9._-]+", each)[0]) for each in wanted}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_module_that_is_imported_belongs_to_a_distribution_that_is_declared():
    sources = [file for folder in (*OURS, "alembic") for file in (PROJECT / folder).rglob("*.py")]
    imported = set().union(*map(modules_imported_in, sources))
    assert {"h11", "pamqp", "starlette", "pydantic_core"} <= imported, "the check sees imports"
    distributions_of = packages_distributions()
    undeclared = {
        module for module in imported if declared().isdisjoint(map(normalized, distributions_of.get(module, [module])))
    }
    assert undeclared == set()


def test_no_text_has_anyone_install_a_name_that_is_not_registered():
    """Anyone who registers the name would run code on the machines of those who follow such a text."""
    texts = [file for folder in (*OURS, "alembic", "docs") for file in (PROJECT / folder).rglob("*.*")]
    texts += [PROJECT / "README.md", PROJECT / "SECURITY.md"]
    advice = re.compile(r"pip install\s+(?:-\S+\s+)*['\"`]?neverlost")
    assert advice.search("pip install -U neverlost"), "the check sees such a text"
    read = {file: file.read_text(errors="ignore") for file in texts if file.suffix in {".py", ".md", ".html", ".sql"}}
    assert [file for file, text in read.items() if advice.search(text)] == []
