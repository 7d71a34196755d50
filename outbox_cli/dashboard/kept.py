"""A view of everything, which takes a while: taken in the background, shown as it was last."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

LONGEST_S = 5.0  # of waiting for a new one
SHARE = 5  # it is taken for at most one part of so many of the time


class Kept(Generic[T]):
    """The last result of something that takes a while.

    Nobody waits for longer than `patience_s` where there is an older result, and it is never taken twice at once. What
    takes long is taken less often.

    Args:
        take: Makes a new one; called in a thread.
        fresh_s: For how long a result is good.
        patience_s: How long one who asks waits for a new one when there is an old one.
    """

    def __init__(self, take: Callable[[], T], *, fresh_s: float = 1.0, patience_s: float = 0.2) -> None:
        self._take, self._fresh_s, self._patience_s = take, fresh_s, patience_s
        self._lock = threading.Lock()
        self._taking: threading.Event | None = None
        self._value: T | None = None
        self._error: Exception | None = None
        self._good_until = float("-inf")
        self._wanted = self._have = 0  # how often it was forgotten, and what the result knows of that

    def get(self, *, wait: bool = True) -> T | None:
        """Return the latest result; ``None`` when there is none yet and `wait` is false.

        Raises:
            Exception: What `take` raised the last time.
        """
        taking, wanted = self._begin(), self._wanted
        while wait and taking is not None and self._have < wanted and taking.wait(LONGEST_S):
            taking = self._begin()  # something was changed: what was seen before is no answer
        if taking is not None:
            is_first = self._value is None and self._error is None
            taking.wait((None if is_first else self._patience_s) if wait else 0)
        if self._error is not None:
            raise self._error
        return self._value

    def forget(self) -> None:
        """Something was changed: take a new one, for which whoever asks next waits."""
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
        except Exception as error:  # whoever asks is told
            self._error = error
        finally:
            took_s = time.monotonic() - began_at
            with self._lock:
                self._have, self._taking = began_for, None
                if began_for == self._wanted:
                    self._good_until = time.monotonic() + max(self._fresh_s, (SHARE - 1) * took_s)
            taking.set()
