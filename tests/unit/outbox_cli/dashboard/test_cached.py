"""A kept result: shown as it was while a new one is computed, but not when it is old."""

from __future__ import annotations

import threading
import time

import pytest
from support.waiting import eventually

from outbox_cli.dashboard import cached
from outbox_cli.dashboard.cached import Cached


class Slow:
    """Counts up; each result but the first waits until the test releases it."""

    def __init__(self) -> None:
        self.calls = 0
        self.may_end = threading.Event()

    def __call__(self) -> int:
        self.calls += 1
        if self.calls > 1:
            self.may_end.wait(60)
        return self.calls


def test_a_recent_result_is_shown_while_a_new_one_takes_long() -> None:
    slow = Slow()
    found = Cached(slow, fresh_s=0.0, patience_s=0.01)
    assert [found.get(), found.get()] == [1, 1]
    slow.may_end.set()


def test_an_old_result_is_not_shown_instead_of_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached, "STALE_S", 0.0)
    monkeypatch.setattr(cached, "LONGEST_S", 60.0)
    monkeypatch.setattr(cached, "SHARE", 1)  # a new result is computed at once, however long the last one took
    slow = Slow()
    found = Cached(slow, fresh_s=0.0, patience_s=0.01)
    assert found.get() == 1
    eventually(lambda: time.monotonic() > found._good_until, what="the result is not fresh any more")
    threading.Timer(0.1, slow.may_end.set).start()
    assert found.get() == 2
