"""Log one line per event on stderr: JSON for machines, text for people.

`structlog` and the standard library's loggers take the same path. Before a line is written, secrets and the passwords
in URLs are masked and control characters are escaped, so no value can forge a line.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from relay.observe.text import MASK, one_line, redacted

__all__ = ["MASK", "Masking", "configure", "one_line", "plain_trace", "redacted"]

SHORTEST_SECRET = 3  # a shorter one, such as "a", would mask most of the log
QUIET = ("alembic", "apscheduler", "asyncio", "httpx", "httpcore", "uvicorn")
# These loggers report each failed attempt to connect; our own log reports it once, with the reason. They stay enabled,
# because the reason may be only in their records (`relay.destinations.kafka.reasons`).
SILENT = ("aio_pika", "aiokafka", "aiormq")

_LEADING_TO_THEM = tuple(
    f"{each}/" for each in (Path(__file__).parents[1], Path(traceback.__file__).parent / "concurrent")
)


def configure(
    *,
    log_format: str = "auto",
    level: str = "info",
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Send every log line of this process to ``stream``.

    Args:
        log_format: ``"json"``, ``"text"``, or ``"auto"``: text if the stream is a terminal.
        level: ``"debug"``, ``"info"``, ``"warning"`` or ``"error"``.
        secrets: Values that must not appear in the log.
        stream: The stream to write to; default: stderr.
    """
    stream = stream or sys.stderr
    threshold = logging.getLevelNamesMapping()[level.upper()]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(log_format, stream, Masking(secrets)))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    for name in QUIET:
        logging.getLogger(name).setLevel(threshold if threshold == logging.DEBUG else max(threshold, logging.WARNING))
    if threshold != logging.DEBUG:
        handler.addFilter(lambda record: record.name.partition(".")[0] not in SILENT)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[*_shared(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


class Masking:
    """A processor that masks secrets and escapes control characters in every event."""

    def __init__(self, secrets: Iterable[str]) -> None:
        found = sorted({s for s in secrets if len(s) >= SHORTEST_SECRET}, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, found))) if found else None

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        trace = event.pop("exception", None)
        clean: EventDict = {one_line(key): self._clean(value) for key, value in event.items()}
        if trace is not None:
            clean["exception"] = "\n".join(map(one_line, self.masked(str(trace)).splitlines()))
        return clean

    def masked(self, text: str) -> str:
        """Return ``text`` without secrets."""
        if self._secrets is not None:
            text = self._secrets.sub(MASK, text)
        return redacted(text)

    def _clean(self, value: object) -> object:
        match value:
            case None | bool() | int() | float():
                return value
            case dict():
                return {one_line(self.masked(str(key))): self._clean(item) for key, item in value.items()}
            case list() | tuple() | set() | frozenset():
                return [self._clean(item) for item in value]
        return one_line(self.masked(str(value)))


def plain_trace(error: BaseException) -> str:
    """Return an error's traceback as text, without local variables, which may hold secrets, or passwords in URLs.

    The text begins at the first frame outside this project and the standard library's threads, for example in the
    listener. Without this function, a process that has not called `configure` (a test) would print every frame with its
    variables.
    """
    formatted = traceback.TracebackException.from_exception(error)
    theirs = [each for each in formatted.stack if not each.filename.startswith(_LEADING_TO_THEM)]
    if theirs:
        formatted.stack = traceback.StackSummary.from_list(formatted.stack[formatted.stack.index(theirs[0]) :])
    return redacted("".join(formatted.format()).rstrip())


def _shared() -> list[Processor]:
    """Return the processors of every event, from `structlog` or from the standard library."""
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        _with_trace,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _with_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Add the current span, if there is one; OpenTelemetry is used only if another module has loaded it."""
    if (trace := sys.modules.get("opentelemetry.trace")) is not None:
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            event.update(trace_id=f"{context.trace_id:032x}", span_id=f"{context.span_id:016x}")
    return event


def _formatter(log_format: str, stream: TextIO, masking: Masking) -> logging.Formatter:
    render: list[Processor] = [_most_telling_first, structlog.processors.JSONRenderer()]
    if log_format == "text" or (log_format == "auto" and stream.isatty()):
        colours = stream.isatty() and not os.environ.get("NO_COLOR")
        plain: Callable[..., None] = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=plain, pad_event_to=0)
        render = [_for_people, renderer]
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared(),
        processors=[remove_meta, structlog.processors.format_exc_info, masking, *render],
    )


def _most_telling_first(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    first = ("timestamp", "level", "logger", "event")
    return {key: event[key] for key in (*first, *sorted(event.keys() - first)) if key in event}


def _for_people(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Shorten times to seconds; indent a traceback, so that none of its lines looks like an event."""
    event["timestamp"] = event["timestamp"][:19] + "Z"
    if trace := event.pop("exception", None):
        event["exception"] = "\n".join(f"    {line}" for line in trace.splitlines())
    return event
