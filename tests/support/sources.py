"""What the tests ask of the product's source files. A process parses each file once, and keeps no syntax tree.

The trees have 220,000 nodes: each garbage collection would visit them until the process ends.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("outbox", "relay", "listeners", "outbox_demo", "outbox_cli")  # each imports only those before it
# What differs between databases stands in these.
ROOMS = re.compile(r"outbox\.writing\.dialects\.(?!dialect$)|relay\.databases\.\w+\.")
DATABASES = {"postgres", "sqlite3", "psycopg", "aiosqlite"} | {
    each.parent.name for each in ROOT.glob("relay/databases/*/dialect.py")
}
LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}


@dataclass
class Facts:
    """What a source file holds.

    Args:
        line_count: The number of its lines.
        imports: The full name of each import, and whether only type checkers see it.
        functions: Each function's name, and the lines of its body without the docstring.
        classes: The names of the classes at the top level.
        branches: The lines of tests of which database it is.
        asked: The names in the second argument of `isinstance`.
        logged: The line of each log call, and its event: None if that is no literal.
    """

    line_count: int
    imports: list[tuple[str, bool]] = field(default_factory=list)
    functions: list[tuple[str, int]] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)
    logged: list[tuple[int, str | None]] = field(default_factory=list)


def sources_of(package: str, root: Path = ROOT) -> Sequence[Path]:
    return sorted((root / package).rglob("*.py"))


def module_name(path: Path, root: Path = ROOT) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def facts_of(path: Path, root: Path = ROOT) -> Facts:
    """Return what a source file holds.

    Args:
        path: The file.
        root: Where the packages lie.
    """
    module = module_name(path, root)
    return _facts_of(path, module if path.name == "__init__.py" else module.rpartition(".")[0])


@cache
def _facts_of(path: Path, package: str) -> Facts:
    text = path.read_text()
    tree = ast.parse(text)
    nodes = list(ast.walk(tree))
    facts = Facts(len(text.splitlines()), classes=[each.name for each in tree.body if isinstance(each, ast.ClassDef)])
    for_types = {id(each) for node in nodes if _is_type_checking(node) for each in ast.walk(node)}
    for node in nodes:
        match node:
            case ast.Import() | ast.ImportFrom():
                facts.imports += [(name, id(node) in for_types) for name in _imported_by(node, package)]
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                facts.functions.append((node.name, _lines(node)))
            case ast.Call():
                _add_call(facts, node)
            case ast.Compare() | ast.MatchValue() if _names_a_database(node):
                facts.branches.append(node.lineno)
    return facts


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _imported_by(node: ast.Import | ast.ImportFrom, package: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    return [".".join([*above, *filter(None, [node.module]), alias.name]) for alias in node.names]


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body
    if len(body) > 1 and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body = body[1:]
    last = body[-1].end_lineno
    assert last is not None
    return last - body[0].lineno + 1


def _add_call(facts: Facts, call: ast.Call) -> None:
    if isinstance(call.func, ast.Name) and call.func.id in ("isinstance", "getattr"):
        if call.func.id == "isinstance":
            facts.asked |= _names_in(call.args[1])
        if _names_a_database(call):
            facts.branches.append(call.lineno)
    elif _is_logging(call):
        event = call.args[0]
        facts.logged.append((call.lineno, str(event.value) if isinstance(event, ast.Constant) else None))


def _is_logging(call: ast.Call) -> bool:
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in LEVELS or not call.args:
        return False
    logger = ast.unparse(call.func.value)
    return logger in ("log", "audit") or "get_logger" in logger


def _names_a_database(node: ast.AST) -> bool:
    texts = {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
    return not DATABASES.isdisjoint(_names_in(node) | texts) or any(_is_name_of_dialect(n) for n in ast.walk(node))


def _names_in(node: ast.AST) -> Set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _is_name_of_dialect(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and ast.unparse(node).endswith("dialect.name")
