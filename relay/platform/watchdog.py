"""What a process ends itself because of: who blocks the event loop, who holds all the threads."""

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
MARGIN_S = 2.0  # longer than the owning thread waits, which can say more: it goes first where it can


def blocker(thread_id: int | None, listeners: Iterable[Callable[..., Any]]) -> tuple[str | None, str]:
    """What a thread is doing at this moment.

    Args:
        thread_id: The event loop's thread.
        listeners: Those that it may be running.

    Returns:
        The listener that it is in, as ``module:callable``, if it is in one; and the innermost place, for people.
    """
    frame = sys._current_frames().get(thread_id) if thread_id is not None else None
    if frame is None:
        return None, "unknown"
    names = {code: name_of(listener) for listener in listeners if (code := _code_of(listener)) is not None}
    found = next((names[each.f_code] for each in _outward(frame) if each.f_code in names), None)
    code = frame.f_code
    return found, f"{code.co_filename}:{frame.f_lineno} in {code.co_qualname}"


def end_if_held(listener: str, held_s: float) -> None:
    """End this process when calls that overran have held all threads of a listener for `HELD_S`.

    A thread cannot be stopped, so that nothing else would free them: not even whatever they wait for, when it is back.

    Args:
        listener: Its name, for people.
        held_s: For how long, in seconds.
    """
    if held_s > HELD_S:
        log.critical("listener_stalled", listener=listener, for_s=round(held_s))
        os._exit(EXIT_CODE)


def name_of(listener: Callable[..., Any]) -> str:
    """As ``module:callable``."""
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
    """End this process unless it is wound up again in time, even if no Python can run until then.

    A listener that holds the interpreter (a C extension, a regular expression that never ends) keeps every thread of
    ours from running, the one included that would end the process. This clock is C's own. It says where each thread
    was, and exits with ``EXIT_CODE``. There is one per process: only a process that does nothing else may wind it up.
    """
    faulthandler.dump_traceback_later(stall_timeout_s + MARGIN_S, exit=True)


def stop() -> None:
    """Let the process live, whatever happens."""
    faulthandler.cancel_dump_traceback_later()
