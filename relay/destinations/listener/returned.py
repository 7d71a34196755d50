"""Check a listener's return value. Only ``None`` means that it took the message: a generator means that nothing ran."""

from __future__ import annotations

import inspect
from types import GeneratorType


class ReturnedSomething(Exception):
    """A listener returned a value other than ``None``."""


def check_returned(returned: object) -> None:
    """Check that a listener has run and returned ``None``.

    Raises:
        ReturnedSomething: It returned another value.
    """
    if returned is None:
        return
    if isinstance(returned, GeneratorType) or inspect.isasyncgen(returned):
        raise ReturnedSomething("returned a generator, so its body did not run: remove the yield")
    if inspect.isawaitable(returned):
        if inspect.iscoroutine(returned):
            returned.close()
        raise ReturnedSomething(
            "returned an awaitable, which cannot be awaited in the transaction of a Session: write async def, "
            "and ask for an AsyncSession"
        )
    raise ReturnedSomething(
        f"returned {type(returned).__name__}: return None when the message is taken, and raise when it is not"
    )
