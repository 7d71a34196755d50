"""Classify and show errors that foreign code raises in a task of the relay."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

LONGEST_CHAIN = 20  # the most causes to follow: a chain may be a circle


def is_for_the_task(error: BaseException) -> bool:
    """Return whether an error ends the current task or the process, and is not a failure of the code that was called.

    If this task was not asked to cancel, a cancellation belongs to the other code: one of its tasks was cancelled.
    A `KeyboardInterrupt` would end the relay again at each attempt at the same message, so it is a failure of the code.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or task.cancelling() > 0
    return isinstance(error, GeneratorExit)


def with_causes(error: BaseException, *, even_hidden: bool = False) -> Iterator[BaseException]:
    """Yield an error, its cause, the cause of that, and so on.

    Args:
        error: The error.
        even_hidden: Whether to follow the causes that ``raise … from None`` hides.
    """
    each: BaseException | None = error
    for _ in range(LONGEST_CHAIN):
        if each is None:
            return
        yield each
        each = each.__cause__ or (each.__context__ if even_hidden or not each.__suppress_context__ else None)


def in_words(error: BaseException) -> str:
    """Return an error's type, and its message if it has one.

    Example:
        >>> in_words(TimeoutError())
        'TimeoutError'
    """
    said = said_by(error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def said_by(error: BaseException) -> str:
    """Return an error's message, even if its ``__str__`` fails."""
    try:
        return str(error)
    except Exception as other:
        return f"its message cannot be shown ({type(other).__name__})"
