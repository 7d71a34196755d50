"""Lists of states, in the form that SQL needs after ``IN``."""

from __future__ import annotations

from collections.abc import Sequence

from relay.decide import verdict
from relay.decide.verdict import State


def _quoted(states: Sequence[State]) -> str:
    return ", ".join(f"'{state}'" for state in states)


GIVEN_UP = _quoted(verdict.GIVEN_UP)
UNTAKEN = _quoted(verdict.UNTAKEN)
FINAL = _quoted(verdict.FINAL)
