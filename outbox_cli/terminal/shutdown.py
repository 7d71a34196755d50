"""End the process on Ctrl-C, and when a listener's thread hangs, for which Python would wait forever."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from time import monotonic
from types import CodeType

from outbox_cli.terminal.output import say
from relay.platform.wording import counted

PREFIX = "outbox-"  # the prefix of the names of listeners' threads
PATIENCE_S = 0.5  # how long to wait for threads that were told to end
AGAIN_S = 0.01  # after this time, a Ctrl-C that was lost is sent again


def keep_interrupts_out_of_the_log() -> None:
    """Filter SQLAlchemy's log of a Ctrl-C while it closes or resets a connection: a traceback that means nothing."""
    for pool in ("NullPool", "QueuePool"):
        logging.getLogger(f"sqlalchemy.pool.impl.{pool}").addFilter(_is_no_interrupt)


def _is_no_interrupt(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], KeyboardInterrupt))


@contextmanager
def repeating_lost_interrupts() -> Iterator[None]:
    """Send a Ctrl-C again if it came while a destructor or the callback of a weak reference ran.

    Python only prints an error that is raised there, and the command would go on.
    """
    main, report, ended = threading.main_thread().ident, sys.unraisablehook, threading.Event()

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if main is None or not isinstance(unraisable.exc_value, KeyboardInterrupt):
            report(unraisable)
            return
        threading.Thread(target=send_again, args=(main,), daemon=True).start()

    def send_again(thread: int) -> None:
        while not ended.wait(AGAIN_S):
            if not _is_running(hook.__code__, thread):  # where it would be lost again
                signal.pthread_kill(thread, signal.SIGINT)
                return

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = report
        ended.set()


def _is_running(code: CodeType, thread: int) -> bool:
    frame = sys._current_frames().get(thread)  # documented, in spite of its name
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


def stop_on_signals(stop: Callable[[], None]) -> None:
    """Let the first signal stop in order, and the second end the process at once."""
    import asyncio

    asked: list[int] = []

    def receive(number: signal.Signals) -> None:
        if asked:
            sys.stderr.flush()
            os._exit(128 + number)
        asked.append(number)
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, receive, number)


def leave_behind(code: int, known: Collection[threading.Thread]) -> None:
    """End the process here if a listener's thread hangs after an orderly stop of everything else.

    Args:
        code: The exit code.
        known: The threads that existed before the command, which are not its own.
    """
    deadline = monotonic() + PATIENCE_S
    threads = [t for t in threading.enumerate() if t.name.startswith(PREFIX) and not t.daemon and t not in known]
    for thread in threads:
        thread.join(max(deadline - monotonic(), 0))
    if hanging := sum(thread.is_alive() for thread in threads):
        say(f"left behind: {counted(hanging, 'call')} of a listener that did not end")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
