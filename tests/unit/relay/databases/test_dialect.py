"""A database is found by its name: its folder, and what belongs to it elsewhere."""

from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest
from shape import Shape

from outbox.errors import SettingsError
from outbox.writing.dialects.dialect import Dialect as WritingDialect
from outbox.writing.dialects.dialect import dialect_named as writing_dialect_named
from relay.databases import names
from relay.databases.dialect import Dialect, dialect_named
from relay.databases.error_codes import Meaning

pytestmark = pytest.mark.xdist_group("sources")

ROOT = Path(__file__).parents[4]
DIALECTS = ROOT / "outbox" / "writing" / "dialects"
REVISIONS = sorted(each.stem for each in ROOT.glob("alembic/versions/*.py"))
DATABASES = set(names())


@pytest.mark.parametrize("name", ["mysql", "store", "rights", "dialect", "", ".", "..", "../databases/sqlite"])
def test_what_is_no_database_is_refused_with_the_names_of_those_that_are(name: str) -> None:
    with pytest.raises(SettingsError, match=f"only {' and '.join(f'{each}:' for each in sorted(DATABASES))} are known"):
        dialect_named(name)


def test_a_url_may_begin_with_another_name_of_a_database() -> None:
    assert dialect_named("postgres") is dialect_named("postgresql")


@pytest.mark.parametrize(
    "found",
    [
        {each.parent.name for each in DIALECTS.glob("*/dialect.py")},
        *({each.parts[-3] for each in DIALECTS.glob(f"*/{revision}/up*.sql")} for revision in REVISIONS),
        {each.parent.name for each in ROOT.glob("relay/databases/*/error_codes.py")},
    ],
    ids=["what emit needs", *REVISIONS, "error codes"],
)
def test_each_database_is_complete(found: set[str]) -> None:
    assert found == DATABASES


@pytest.mark.parametrize("name", sorted(DATABASES))
def test_each_database_has_all_that_the_others_need(name: str) -> None:
    """mypy checks the members, too, but names at most two that are missing."""
    for wanted, module in ((Dialect, dialect_named(name)), (WritingDialect, writing_dialect_named(name))):
        assert members(wanted) - vars(module).keys() == set()
    error_codes = import_module(f"relay.databases.{name}.error_codes")
    assert {"code_of", *get_args(Meaning)} - vars(error_codes).keys() == set()


def members(protocol: type) -> set[str]:
    return {name for name in {**vars(protocol), **protocol.__annotations__} if not name.startswith("_")}


def test_nothing_outside_a_databases_folder_imports_from_it() -> None:
    folders = tuple(f"relay.databases.{name}" for name in DATABASES)
    imports = {
        f"{each.importer} -> {each.imported}"
        for each in Shape(ROOT).imports
        for folder in folders
        if each.imported.startswith(folder) and not each.importer.startswith(folder)
    }
    assert imports == set()
