"""The queues between the event loop and the owning thread."""

import sys
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from relay.settling import front


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
