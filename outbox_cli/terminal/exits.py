"""The exit codes of all commands."""

from __future__ import annotations

OK = 0
FAILED = 1
USAGE = 2
UNUSABLE = 3
UNHEALTHY = 4
INTERRUPTED = 130

HELP = (
    "Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 cannot work here (settings, schema, database), "
    "4 unhealthy, 130 interrupted."
)
