"""Waiting for a condition itself, with a deadline, instead of sleeping."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar, overload

Found = TypeVar("Found")

INTERVAL_S = 0.02
LONGEST_INTERVAL_S = 0.1


class _Wait:
    """One wait: how often it was tried, what was seen last, and whether there is time left."""

    def __init__(self, predicate: Callable[..., object], deadline_s: float, what: str | None) -> None:
        self._what = what or _source(predicate)
        self._deadline_s = deadline_s
        self._ends_at = time.monotonic() + deadline_s
        self.begin()
        self._tries = 0
        self._last_seen = "nothing"

    def found(self, value: object) -> bool:
        self._tries += 1
        self._last_seen = f"it returned {value!r}"
        return bool(value)

    def not_yet(self, error: BaseException) -> None:
        self._tries += 1
        self._last_seen = f"it raised {type(error).__name__}: {error}"

    def begin(self) -> None:
        """Note that a try begins."""
        self._began_at = time.monotonic()

    def pause_s(self) -> float:
        """Return how long to wait before the next try: a slow condition is checked less often."""
        __tracebackhide__ = True
        now = time.monotonic()
        if self._began_at >= self._ends_at:  # no earlier: the machine may have stood still during a try
            raise AssertionError(
                f"not within {self._deadline_s:g} s ({self._tries} tries): {self._what}\n"
                f"the last time {self._last_seen}"
            )
        return min(max(INTERVAL_S, 9 * (now - self._began_at)), LONGEST_INTERVAL_S)


def eventually(
    predicate: Callable[[], Found],
    *,
    deadline_s: float = 30,
    what: str | None = None,
    ignoring: tuple[type[Exception], ...] = (),
) -> Found:
    """Call `predicate` until it returns something true, and return that.

    An AssertionError in the predicate means "not yet", as does any of `ignoring`; any other exception
    is a failure at once. `what` replaces the predicate's source in the message of the failure.
    """
    __tracebackhide__ = True
    wait = _Wait(predicate, deadline_s, what)
    while True:
        wait.begin()
        try:
            value = predicate()
            if wait.found(value):
                return value
        except (AssertionError, *ignoring) as error:
            wait.not_yet(error)
        time.sleep(wait.pause_s())


@overload
async def eventually_async(
    predicate: Callable[[], Awaitable[Found]],
    *,
    deadline_s: float = ...,
    what: str | None = ...,
    ignoring: tuple[type[Exception], ...] = ...,
) -> Found: ...
@overload
async def eventually_async(
    predicate: Callable[[], Found],
    *,
    deadline_s: float = ...,
    what: str | None = ...,
    ignoring: tuple[type[Exception], ...] = ...,
) -> Found: ...
async def eventually_async(
    predicate: Callable[[], object],
    *,
    deadline_s: float = 30,
    what: str | None = None,
    ignoring: tuple[type[Exception], ...] = (),
) -> object:
    """Wait as `eventually` does for a plain or async predicate, without blocking the event loop."""
    __tracebackhide__ = True
    wait = _Wait(predicate, deadline_s, what)
    while True:
        wait.begin()
        try:
            value = predicate()
            if inspect.isawaitable(value):
                value = await value
            if wait.found(value):
                return value
        except (AssertionError, *ignoring) as error:
            wait.not_yet(error)
        await asyncio.sleep(wait.pause_s())


def await_standstill(pid: int) -> None:
    """Wait until all threads of a process that was sent SIGSTOP stand still: the signal reaches them one by one."""

    def stands_still() -> bool:
        threads = Path(f"/proc/{pid}/task").glob("*/stat")
        return all(path.read_text().rpartition(")")[2].split()[0] == "T" for path in threads)

    eventually(stands_still, what=f"process {pid} stands still", ignoring=(OSError,))


def _source(predicate: Callable[..., object]) -> str:
    try:
        return " ".join(inspect.getsource(predicate).split())
    except (OSError, TypeError):
        return repr(predicate)
