"""Limit the log lines that untrusted clients cause."""

from __future__ import annotations

import logging
from time import monotonic

from relay.serving.rate import Rate


class LogLimit(logging.Filter):
    """Passes lines of each kind at a limited rate; the next line that passes says how many were left out.

    Args:
        only: How the lines that are limited begin; all other lines pass.
        lines: The number of lines of one kind per period.
        period_s: The length of a period, in seconds.
    """

    def __init__(self, only: str = "", *, lines: int = 5, period_s: float = 60.0) -> None:
        super().__init__()
        self._only = only
        self._rate = Rate(lines / period_s, lines)
        self._left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        kind = str(record.msg).partition("\n")[0]
        if not kind.startswith(self._only):
            return True
        if self._rate.take(kind, monotonic()):
            self._left_out += 1
            return False
        if self._left_out:
            record.msg = f"{record.msg} ({self._left_out} more like this were not logged)"
            self._left_out = 0
        return True
