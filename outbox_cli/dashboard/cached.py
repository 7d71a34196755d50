"""A result that is slow to compute: it is computed in the background, and the last result is shown."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

LONGEST_S = 5.0  # how long to wait for a new result
STALE_S = 10.0  # an older result is not shown while a new one is computed
SHARE = 5  # at most one fifth of the time is spent computing the result


class Cached(Generic[T]):
    """The last result of a slow function.

    If a recent result exists, a caller waits at most `patience_s`. The function never runs twice at once. The longer it
    takes, the less often it runs.

    Args:
        take: Returns a new result; called in a thread.
        fresh_s: How long a result is used, in seconds.
        patience_s: How long a caller waits for a new result if there is an old one, in seconds.
    """

    def __init__(self, take: Callable[[], T], *, fresh_s: float = 1.0, patience_s: float = 0.2) -> None:
        self._take, self._fresh_s, self._patience_s = take, fresh_s, patience_s
        self._lock = threading.Lock()
        self._taking: threading.Event | None = None
        self._value: T | None = None
        self._error: Exception | None = None
        self._good_until = self._taken_at = float("-inf")
        self._wanted = self._have = 0  # how often the result was forgotten: now, and when it was computed

    def get(self, *, wait: bool = True) -> T | None:
        """Return the latest result; ``None`` if there is none yet and `wait` is false.

        Raises:
            Exception: The error of the last call of `take`.
        """
        taking, wanted = self._begin(), self._wanted
        while wait and taking is not None and self._have < wanted and taking.wait(LONGEST_S):
            taking = self._begin()  # after a change, an older result must not be returned
        if taking is not None:
            is_first = self._value is None and self._error is None
            is_stale = time.monotonic() > self._taken_at + STALE_S
            taking.wait((None if is_first else LONGEST_S if is_stale else self._patience_s) if wait else 0)
        if self._error is not None:
            raise self._error
        return self._value

    def forget(self) -> None:
        """Forget the result after a change: the next caller waits for a new one."""
        with self._lock:
            self._wanted += 1
            self._good_until = float("-inf")

    def _begin(self) -> threading.Event | None:
        with self._lock:
            if self._taking is None and time.monotonic() > self._good_until:
                self._taking = threading.Event()
                threading.Thread(target=self._run, args=(self._taking,), name="dashboard-look", daemon=True).start()
            return self._taking

    def _run(self, taking: threading.Event) -> None:
        began_at, began_for = time.monotonic(), self._wanted
        try:
            self._value, self._error = self._take(), None
        except Exception as error:  # the callers get the error
            self._error = error
        finally:
            took_s = time.monotonic() - began_at
            with self._lock:
                self._have, self._taking, self._taken_at = began_for, None, time.monotonic()
                if began_for == self._wanted:
                    self._good_until = time.monotonic() + max(self._fresh_s, (SHARE - 1) * took_s)
            taking.set()
