"""Check a listener's return value. Only ``None`` means that it took the message; a generator means that nothing ran."""

from __future__ import annotations

import inspect


class ReturnedSomething(Exception):
    """A listener returned a value other than ``None``."""


def check_returned(returned: object) -> None:
    """Check that a listener has run and returned ``None``.

    Raises:
        ReturnedSomething: It returned another value.
    """
    if returned is None:
        return
    if inspect.iscoroutine(returned):
        returned.close()
        why = "it ran no code: write async def, and ask for an AsyncSession"
    elif inspect.isgenerator(returned) or inspect.isasyncgen(returned):
        why = "its body did not run: remove the yield"
    else:
        why = "return None when the message is taken, and raise when it is not"
    raise ReturnedSomething(f"returned {type(returned).__name__}: {why}")
