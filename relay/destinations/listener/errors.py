"""Wrap errors of a listener that asyncio would not treat as the failure of one message.

`SystemExit`, which `sys.exit` and many command-line libraries raise, would end the relay at each attempt, and so would
`KeyboardInterrupt`: a Ctrl-C reaches the relay as a signal, and raises nothing in a listener. A future cannot hold a
`StopIteration` from a plain listener, so the attempt would never end.
"""

from __future__ import annotations

import asyncio

from relay.observe.errors import in_words


class ListenerError(Exception):
    """A listener raised an error that asyncio does not pass on like other errors; `__cause__` is that error."""


class ErrorGuard:
    """A context that raises `ListenerError` if a listener raises a `StopIteration`, or an error that is no `Exception`.

    It is a class because a generator would cost several times as much for each message.

    Args:
        through: The errors that it leaves as they are.
    """

    def __init__(self, *through: type[BaseException]) -> None:
        self._through = through

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, self._through):
            return
        if not isinstance(error, Exception) or isinstance(error, StopIteration):
            raise ListenerError(how_it_raised(error)) from error


contained = ErrorGuard(asyncio.CancelledError, GeneratorExit)  # a GeneratorExit may close the coroutine that runs it
contained_call = ErrorGuard(asyncio.CancelledError)  # for a plain call, which nothing can close


def how_it_raised(error: BaseException) -> str:
    """Return what a listener did, for people."""
    return f"raised {in_words(error)}"
