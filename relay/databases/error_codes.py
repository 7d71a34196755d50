"""The meaning of drivers' errors, for all databases, because a listener may use another one than the outbox.

The module `error_codes` in the folder of each database has a function ``code_of``, which returns the code of a driver's
error or ``None``, and a set of codes for each `Meaning`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any, Literal

import sqlalchemy as sa

from relay.databases import names

# CONFLICTS: the database ended the transaction in favour of another one
# INTERRUPTED: we ended the statement
# OVERRUN: a statement, or a pause between two, was longer than allowed
# WRONG_SQL: wrong SQL, if the driver raises it as an operational error
Meaning = Literal["CONFLICTS", "INTERRUPTED", "OVERRUN", "WRONG_SQL"]


def means(error: BaseException, *meanings: Meaning) -> bool:
    """Return whether a driver's error, which SQLAlchemy's error may wrap, has one of these meanings."""
    found = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    return any(each.code_of(found) in getattr(each, meaning) for each in _databases() for meaning in meanings)


@cache
def _databases() -> list[Any]:
    return [import_module(f"{__package__}.{name}.error_codes") for name in names()]
