"""Decide whether to retry or give up: only this module turns a charged failure into a verdict."""

from __future__ import annotations

from typing import Protocol

from relay.decide.backoff import Policy, clamped
from relay.decide.outcome import Outcome
from relay.decide.verdict import Verdict, dead, retry


class Charged(Protocol):
    """A delivery, as the decision needs it."""

    attempts: int  # charged so far
    failing_for_s: float  # since its first charged failure


def charge(delivery: Charged, outcome: Outcome, policy: Policy) -> Verdict:
    """Charge one failed attempt to its message.

    Args:
        delivery: The delivery, with the attempts charged before this one.
        outcome: How the attempt failed.
        policy: How many attempts the destination allows, for how long, and how far apart.

    Returns:
        A dead letter when the message was refused, or has used up its attempts or its time; else a retry.
    """
    given_up = _reason_to_give_up(delivery, outcome, policy)
    if given_up is not None:
        return dead(given_up, outcome.detail)
    ceiling_s = policy.ceiling_s(delivery.attempts + 1)
    return retry(ceiling_s, outcome.reason, outcome.detail, delay_floor_s=_asked_s(outcome))


def _reason_to_give_up(delivery: Charged, outcome: Outcome, policy: Policy) -> str | None:
    attempts = delivery.attempts + 1
    if outcome.kind == "refused":
        return outcome.reason
    if attempts >= policy.max_attempts:
        return f"{outcome.reason} (attempt {attempts} of {policy.max_attempts})"
    if delivery.failing_for_s >= policy.give_up_after_s:
        return f"{outcome.reason} (failing for {delivery.failing_for_s:.0f} s)"
    return None


def _asked_s(outcome: Outcome) -> float:
    """Return the wait that the destination asked for. The backoff is added, so messages do not all come at once."""
    return 0.0 if outcome.retry_after_s is None else clamped(outcome.retry_after_s)
