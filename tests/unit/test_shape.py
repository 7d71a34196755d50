"""The numbers that `python -m tests.shape` prints stay where they are: the tree shows the architecture."""

from pathlib import Path

import pytest
from shape import MEDIAN_LINES, Shape

pytestmark = pytest.mark.xdist_group("sources")


@pytest.fixture(scope="module")
def shape() -> Shape:
    return Shape(Path(__file__).parents[2])


def test_what_should_not_be_there_is_not(shape: Shape) -> None:
    assert len(shape.findings) == 7
    assert not {what: found for what, found in shape.findings.items() if found}


def test_functions_are_short(shape: Shape) -> None:
    assert shape.median_function <= MEDIAN_LINES


def test_the_check_sees_what_is_there(shape: Shape) -> None:
    """Otherwise a rename would make the check empty."""
    assert {"relay.relay", "outbox.event", "outbox_cli.app"} <= shape.modules
    assert len(shape.imports) > 2000
    assert any(each.imported == "relay.owner.thread" and each.importer == "relay.relay" for each in shape.imports)


def test_circles_and_upward_imports_are_found(tmp_path: Path) -> None:
    for package in ("outbox", "relay", "listeners"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / "outbox" / "a.py").write_text("import relay.c\nfrom outbox import b\n")
    (tmp_path / "outbox" / "b.py").write_text("def f():\n    from outbox.a import x\n")
    (tmp_path / "relay" / "c.py").write_text("")
    shape = Shape(tmp_path)
    assert shape.circles == ["outbox.a <-> outbox.b"]
    assert shape.upward_imports == ["outbox.a -> relay.c"]


def test_tests_of_the_database_are_found_outside_its_rooms(tmp_path: Path) -> None:
    branches = [
        'if c.dialect.name == "postgresql": pass',
        "if isinstance(d, sqlite3.Connection): pass",
        'match x:\n    case "sqlite": pass',
        "if names[0] != dialect.name: pass",
        'Id = Uuid().with_variant(String(36), "sqlite")',  # no branch
    ]
    (tmp_path / "relay" / "databases" / "sqlite").mkdir(parents=True)
    for path in ("relay/a.py", "relay/databases/sqlite/b.py"):
        (tmp_path / path).write_text("\n".join(branches))
    assert Shape(tmp_path).branches_on_databases == ["relay.a:1", "relay.a:2", "relay.a:4", "relay.a:5"]
