"""One place decides whether a charged failure is a retry or a dead letter."""

import pytest
from support.letters import FAILED, REFUSED, Letter

from relay.decide.backoff import Policy
from relay.decide.outcome import busy
from relay.decide.retry import charge

POLICY = Policy(max_attempts=3, give_up_after_s=60)


@pytest.mark.parametrize(
    ("letter", "state"),
    [
        (Letter(attempts=1), "retry"),
        (Letter(attempts=2), "dead"),
        (Letter(attempts=1, failing_for_s=59.9), "retry"),
        (Letter(attempts=1, failing_for_s=60), "dead"),
    ],
)
def test_a_message_is_dead_after_its_attempts_or_its_time(letter: Letter, state: str) -> None:
    assert charge(letter, FAILED, POLICY).state == state


def test_a_message_that_was_refused_is_dead_at_once() -> None:
    assert charge(Letter(), REFUSED, POLICY).state == "dead"


def test_each_charged_failure_doubles_the_wait_before_the_next_attempt() -> None:
    waits = [charge(Letter(attempts=n), FAILED, Policy()).delay_ceiling_s for n in range(14)]
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600]


def test_a_message_whose_receiver_names_a_time_waits_at_least_that_long() -> None:
    verdict = charge(Letter(), busy("409", retry_after_s=90), POLICY)
    assert (verdict.delay_floor_s, verdict.delay_ceiling_s) == (90, POLICY.backoff_s), "the floor has no jitter"
    assert charge(Letter(), busy("409"), POLICY).delay_floor_s == 0
