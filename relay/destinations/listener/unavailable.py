"""Recognise the errors of a listener that mean that a service which it needs is away."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from relay.databases.error_codes import means

CHAIN = 10  # the maximum number of causes to follow


def is_from_outside(error: BaseException) -> bool:
    """Return whether an outage can have produced an error, or one of its causes.

    An outage produces an `OSError` (such as a refused connection or `TimeoutError`) or a database's operational error.
    HTTP clients and database drivers raise their own errors, with such an error as the cause.
    """
    return any(_is_outage(each) for each in _with_causes(error))


def _is_outage(error: BaseException) -> bool:
    if isinstance(error, DBAPIError):
        if means(error, "CONFLICTS"):
            return False  # a deadlock or a serialisation failure: the database works
        return isinstance(error, (OperationalError, InterfaceError)) or error.connection_invalidated
    return isinstance(error, OSError)


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    each: BaseException | None = error
    for _ in range(CHAIN):
        if each is None:
            return
        yield each
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
