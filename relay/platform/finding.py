"""The result of a check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["ok", "note", "bad"]


@dataclass(frozen=True)
class Finding:
    """One result of a check.

    Args:
        check: The name of the check, the same in every run.
        severity: ``ok``; ``note``: worth knowing; ``bad``: it causes a failure now or soon.
        what: The observed fact.
        why: Its consequence; empty if all is well.
        do: The remedy; empty if all is well.
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
