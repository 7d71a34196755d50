"""Limit the log lines that untrusted clients cause."""

from __future__ import annotations

import logging
from collections import OrderedDict
from time import monotonic

KINDS = 100  # kinds of messages that are counted separately


class LogLimit(logging.Filter):
    """Passes a limited number of lines of each kind per period; the next line says how many were left out.

    Args:
        only: The beginning of the lines that are limited; others always pass.
        lines: The number of lines per period.
        period_s: The length of a period, in seconds.
    """

    def __init__(self, only: str = "", *, lines: int = 5, period_s: float = 60.0) -> None:
        super().__init__()
        self._only, self._lines, self._period_s = only, lines, period_s
        self._kinds: OrderedDict[str, _Count] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        first_line = str(record.msg).partition("\n")[0]
        if not first_line.startswith(self._only):
            return True
        count = self._kinds.setdefault(first_line, _Count(monotonic()))
        if len(self._kinds) > KINDS:
            self._kinds.popitem(last=False)
        if monotonic() - count.began_at > self._period_s:
            self._say_again(record, count)
        count.lines += 1
        return count.lines <= self._lines

    def _say_again(self, record: logging.LogRecord, count: _Count) -> None:
        if (left_out := count.lines - self._lines) > 0:
            record.msg = f"{record.msg} ({left_out} more like this were not logged)"
        count.began_at, count.lines = monotonic(), 0


class _Count:
    def __init__(self, began_at: float) -> None:
        self.began_at, self.lines = began_at, 0
