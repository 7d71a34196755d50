"""What a check has to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["ok", "note", "bad"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        check: Its name, the same in every run.
        severity: ``ok``; ``note``, worth knowing; ``bad``, which will bite, or bites already.
        what: What was found.
        why: Why it matters; empty when all is well.
        do: What to do about it; empty when all is well.
    """

    check: str
    severity: Severity
    what: str
    why: str = ""
    do: str = ""


def ok(check: str, what: str) -> Finding:
    return Finding(check, "ok", what)


def note(check: str, what: str, why: str, do: str) -> Finding:
    return Finding(check, "note", what, why, do)


def bad(check: str, what: str, why: str, do: str) -> Finding:
    return Finding(check, "bad", what, why, do)
