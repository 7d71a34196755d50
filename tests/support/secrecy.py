"""Checks that no secret of a test shows in anything that the test has written.

A test module names its secrets `SECRET`, `OLD`, `NEW`, `WHSEC` or, a dict of them, `HIDDEN`. Everything that its tests
logged, printed or had a process print, and every row that it left in its database, is searched for them.
"""

from types import ModuleType

import sqlalchemy as sa

from support.databases import Database

NAMES = ("SECRET", "OLD", "NEW", "WHSEC", "HIDDEN")
SHORTEST = 20  # a shorter one is not secret, but a word that may occur anywhere


def secrets_of(module: ModuleType | None) -> set[str]:
    """Return the secrets that the tests of a module use."""
    found: list[object] = []
    for value in (getattr(module, name, None) for name in NAMES):
        found += value.values() if isinstance(value, dict) else [value]
    return {secret for secret in found if isinstance(secret, str) and len(secret) >= SHORTEST}


def everything_in(database: Database) -> str:
    """Return every row of every table."""
    tables = sa.inspect(database.engine).get_table_names()
    return "\n".join(repr(row) for table in tables for row in database.rows(f'SELECT * FROM "{table}"'))


def assert_hidden(secrets: set[str], text: str, where: str) -> None:
    """Fail if a secret shows; the message says where, and not which: it is printed too."""
    __tracebackhide__ = True
    if any(secret in text for secret in secrets):
        raise AssertionError(f"a secret of this test shows in {where}")
