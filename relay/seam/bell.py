"""The bell ends a sleep of the owning thread: it is a pipe on which the thread waits, beside the database's socket."""

from __future__ import annotations

import os


class Bell:
    """A pipe that the event loop writes to, and on which the owning thread waits."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)

    def ring(self) -> None:
        """End the sleep, or the next one. May be called by any thread."""
        try:
            os.write(self._write, b"x")
        except BlockingIOError:
            return  # the pipe is full: it wakes the thread anyway

    def fileno(self) -> int:
        """Return the end to wait on and to read from."""
        return self._read

    def close(self) -> None:
        """Close both ends, after the owning thread has ended."""
        os.close(self._read)
        os.close(self._write)
