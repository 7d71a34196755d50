"""End a connection whose server no longer answers.

libpq waits for an answer without a limit. TCP's own timeouts find a host that is gone, but they are content if anybody
acknowledges the bytes: a proxy whose server is gone, or the kernel of a server that hangs. The statement timeout does
not help either, because it is the server's.
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress
from threading import Event, Thread
from time import monotonic
from typing import Any

import psycopg
from psycopg.waiting import Ready, Wait

ANSWER_S = 300.0  # the longest wait of an `AnsweredConnection`


class AnswerWatcher:
    """Shuts a connection down when no answer has arrived for too long: then the call that waits for one fails.

    Args:
        connection: A connection that asks the server something much more often than that.
        limit_s: How long the server may be silent, in seconds.

    Attributes:
        reason: Why it has ended the connection, for people; ``None`` while it has not.
    """

    def __init__(self, connection: psycopg.Connection[Any], limit_s: float) -> None:
        self._socket = socket.socket(fileno=os.dup(connection.fileno()))  # valid even if libpq closes its own
        self._limit_s = limit_s
        self.reason: str | None = None
        self._closed = Event()
        self.note_answer()
        Thread(target=self._watch, name="outbox-answer-watcher", daemon=True).start()

    def note_answer(self) -> None:
        """Note that the server has answered."""
        self._answered_at = monotonic()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _watch(self) -> None:
        with self._socket:
            while not self._closed.wait(max(self._left_s, 0.01)):
                if self._left_s <= 0:
                    self.reason = f"the server has not answered for {self._limit_s:g} s"
                    with suppress(OSError):  # the other side may have ended it just now
                        self._socket.shutdown(socket.SHUT_RDWR)
                    return

    @property
    def _left_s(self) -> float:
        return self._answered_at + self._limit_s - monotonic()


class AnsweredConnection(psycopg.Connection[Any]):
    """A connection that waits for the server for at most `ANSWER_S`, as psycopg before 3.3 cannot do."""

    def wait(self, gen: Any, *_args: Any, **_options: Any) -> Any:
        """Run a generator of psycopg, which yields what it waits for."""
        try:
            wanted = next(gen)
            while True:
                wanted = gen.send(self._ready(wanted))
        except StopIteration as end:
            return end.value

    def _ready(self, wanted: int) -> Ready:
        poll = select.poll()
        events = (select.POLLIN if wanted & Wait.R else 0) | (select.POLLOUT if wanted & Wait.W else 0)
        poll.register(self.pgconn.socket, events)
        if not (found := poll.poll(ANSWER_S * 1000)):
            self.pgconn.finish()
            raise psycopg.OperationalError(f"the server has not answered for {ANSWER_S:g} s")
        can_write = wanted & Wait.W and found[0][1] & select.POLLOUT
        can_read = wanted & Wait.R and found[0][1] & ~select.POLLOUT  # an error is found by reading
        return Ready((Ready.R if can_read else 0) | (Ready.W if can_write or not can_read else 0))
