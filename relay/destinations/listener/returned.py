"""What a listener returned. Only ``None`` means that it took the message: a generator, say, means that nothing ran."""

from __future__ import annotations

import inspect
from types import GeneratorType


class ReturnedSomething(Exception):
    """A listener returned something else than ``None``."""


def check_returned(returned: object) -> None:
    """Check that a listener has run and returned ``None``.

    Raises:
        ReturnedSomething: It returned anything else.
    """
    if returned is None:
        return
    if isinstance(returned, GeneratorType) or inspect.isasyncgen(returned):
        raise ReturnedSomething("returned a generator, so that its body did not run: take the yield out of it")
    if inspect.isawaitable(returned):
        if inspect.iscoroutine(returned):
            returned.close()
        raise ReturnedSomething(
            "returned something to be awaited, which cannot be done in the transaction of a Session: write async def, "
            "and ask for an AsyncSession"
        )
    raise ReturnedSomething(
        f"returned {type(returned).__name__}: return None when the message is taken, and raise when it is not"
    )
