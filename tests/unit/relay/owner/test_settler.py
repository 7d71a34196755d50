"""The queues between the event loop and the owning thread."""

import sys
import threading
from collections import deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from relay.databases.store.contract import Settling
from relay.owner.settler import Settler
from relay.seam import Entry, front


@pytest.fixture
def hectic() -> Iterator[None]:
    """An interpreter that changes threads whenever it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hectic")
def test_the_front_of_a_queue_can_be_looked_at_while_others_append_to_it() -> None:
    queue: deque[Any] = deque(range(1000))
    over = threading.Event()

    def append() -> None:
        while not over.is_set():
            queue.append(0)
            queue.popleft()

    other = threading.Thread(target=append)
    other.start()
    try:
        for _ in range(5_000):
            assert len(front(queue, 100)) == 100
    finally:
        over.set()
        other.join()


class Unasked:
    """Writes that must not be used."""


def test_an_unwanted_message_is_read_again_after_its_session_is_lost() -> None:
    """The next session's page drops the message, because the lost session's entry is still held."""
    row = ("m-1", 1, 0, 0, "page.read", "s", None, None, "{}", "{}", "2026-01-01 00:00:00+00", None, None, None)
    stale = Entry(row, (), epoch=1)
    forgotten: list[Entry] = []
    again: list[Entry] = []
    reader: Any = SimpleNamespace(reread=again.append)
    seam: Any = SimpleNamespace(tell=SimpleNamespace(forget=forgotten.extend))
    settler = Settler(cast(Settling, Unasked()), 2, reader, seam, unconfirmed=[], clock=lambda: 0.0)
    settler.set_aside(deque([stale]))
    assert (forgotten, again) == ([stale], [stale])
