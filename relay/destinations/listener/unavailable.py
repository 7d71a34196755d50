"""Recognise the errors of a listener that mean that a service which it needs is away."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from relay.databases.error_codes import means
from relay.observe.errors import with_causes


def is_from_outside(error: BaseException) -> bool:
    """Return whether an outage can have produced an error, or one of its causes.

    An outage produces an `OSError` (such as a refused connection or `TimeoutError`) or a database's operational error.
    HTTP clients and database drivers raise their own errors, with such an error as the cause.
    """
    return any(_is_outage(each) for each in with_causes(error))


def _is_outage(error: BaseException) -> bool:
    if isinstance(error, DBAPIError):
        if means(error, "CONFLICTS"):
            return False  # a deadlock or a serialisation failure: the database works
        return isinstance(error, (OperationalError, InterfaceError)) or error.connection_invalidated
    return isinstance(error, OSError)
