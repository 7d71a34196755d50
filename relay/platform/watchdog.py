"""End the process when a callable blocks the event loop or holds all threads."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, FrameType
from typing import Any

import structlog

from outbox.own_packages import plain

log = structlog.get_logger("relay")

EXIT_CODE = 1
LOOK_AGAIN_S = 1.0
HELD_S = 600.0
MARGIN_S = 2.0  # longer than the owning thread waits: if it can, it ends the process first, with a better reason


def blocker(thread_id: int | None, listeners: Iterable[Callable[..., Any]]) -> tuple[str | None, str]:
    """Return the code that a thread is running at this moment.

    Args:
        thread_id: The event loop's thread.
        listeners: The listeners that it may be running.

    Returns:
        The listener that it runs, as ``module:callable``, or ``None``; and the innermost position in the code, for
        people.
    """
    frame = sys._current_frames().get(thread_id) if thread_id is not None else None
    if frame is None:
        return None, "unknown"
    names = {code: name_of(listener) for listener in listeners if (code := _code_of(listener)) is not None}
    found = next((names[each.f_code] for each in _outward(frame) if each.f_code in names), None)
    code = frame.f_code
    return found, f"{code.co_filename}:{frame.f_lineno} in {code.co_qualname}"


def end_if_held(listener: str, held_s: float) -> None:
    """End this process if overrunning calls have held all threads of a listener for `HELD_S`.

    A thread cannot be stopped. So only the end of the process frees the threads, even if the resource that they wait
    for comes back.

    Args:
        listener: The listener's name, for people.
        held_s: How long the threads have been held, in seconds.
    """
    if held_s > HELD_S:
        log.critical("listener_stalled", listener=listener, for_s=round(held_s))
        os._exit(EXIT_CODE)


def name_of(listener: Callable[..., Any]) -> str:
    """Return a listener's name as ``module:callable``."""
    module, name = getattr(listener, "__module__", "?"), getattr(listener, "__qualname__", type(listener).__name__)
    return f"{plain(str(module))}:{name}"


def _outward(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _code_of(listener: Callable[..., Any]) -> CodeType | None:
    for each in (listener, getattr(listener, "__func__", None), getattr(type(listener), "__call__", None)):  # noqa: B004
        code = getattr(each, "__code__", None)
        if isinstance(code, CodeType):
            return code
    return None


def wind_up(stall_timeout_s: float) -> None:
    """End this process unless this function is called again in time; this works even if no Python code can run.

    A listener that holds the interpreter (a C extension, an endless regular expression) stops all our threads,
    including the one that would end the process. This timer is C code. It prints where each thread is, and exits with
    ``EXIT_CODE``. There is one timer per process, so only a process that has no other use for it may call this.
    """
    faulthandler.dump_traceback_later(stall_timeout_s + MARGIN_S, exit=True)


def stop() -> None:
    """Stop the timer of `wind_up`."""
    faulthandler.cancel_dump_traceback_later()
