"""What relays know of a destination together: one relay's finding stops the others, unless they know better."""

from __future__ import annotations

import pytest
from support.letters import DOWN, Letter, attempt, breaker

from relay.decide.backoff import Policy
from relay.decide.breaker import CircuitBreaker
from relay.decide.outcome import TAKEN
from relay.decide.shared_state import FRESH_S, MARGIN_S, SharedState


@pytest.mark.parametrize(
    ("shared_state", "down"),
    [
        (SharedState("healthy"), False),
        (SharedState("paused", "failure", "500", 3.0), True),
        (SharedState("paused", "failure", "500", -3.0), True),  # a probe is due, but nothing else may start
        (SharedState("paused", "operator", "lunch", None), False),  # relays do not decide this
        (SharedState("throttled", "failure", "429", 3.0), True),
        (SharedState("throttled", "failure", "429", -0.1), False),
        (SharedState("off", "failure", "410", None), True),
    ],
)
def test_which_rows_stop_a_relay(shared_state: SharedState, down: bool) -> None:
    assert shared_state.is_down is down


def test_only_a_success_that_began_after_the_pause_disputes_it() -> None:
    declared = SharedState("paused", "failure", "500", 1.0, age_s=5.0)
    assert declared.is_disputed_by(4.0)
    assert not declared.is_disputed_by(5.0 - MARGIN_S)
    assert not declared.is_disputed_by(60.0)


def test_a_relay_at_work_gets_a_moment_to_find_out_by_itself() -> None:
    assert SharedState("paused", "failure", "500", 1.0, age_s=FRESH_S / 2).is_fresh
    assert not SharedState("paused", "failure", "500", 1.0, age_s=FRESH_S).is_fresh


@pytest.fixture
def rule() -> CircuitBreaker[Letter]:
    return breaker()


def test_a_pause_that_was_adopted_goes_on_where_the_others_were(rule: CircuitBreaker[Letter]) -> None:
    """The next failed probe waits longer than the adopted pause, and not as long as a first one."""
    rule.adopt(SharedState("paused", "failure", "refused", 8.0, pauses=4), now=100.0)
    assert (rule.condition, rule.reason, rule.until) == ("open", "refused", 108.0)
    rule.start()
    assert rule.judge(Letter(), DOWN, 108.0, 109.0)[0][1] is None
    assert rule.until == 109.0 + Policy().ceiling_s(5)


@pytest.mark.parametrize(("state", "condition"), [("paused", "open"), ("throttled", "throttled"), ("off", "off")])
def test_adopting_charges_nothing_and_releases_every_suspect(
    rule: CircuitBreaker[Letter], state: str, condition: str
) -> None:
    suspect = Letter()
    attempt(rule, suspect, DOWN, 1.0)
    assert rule.adopt(SharedState(state, "failure", "x", 5.0), now=3.0) == [(suspect, None)]
    assert rule.condition == condition


def test_a_probe_that_is_taken_ends_an_adopted_pause(rule: CircuitBreaker[Letter]) -> None:
    rule.adopt(SharedState("paused", "failure", "x", 1.0, pauses=3), now=0.0)
    attempt(rule, Letter(), TAKEN, 1.0)
    assert (rule.condition, rule.pauses) == ("closed", 0)


def test_what_is_switched_off_stays_off(rule: CircuitBreaker[Letter]) -> None:
    rule.adopt(SharedState("off", "failure", "410"), now=0.0)
    for state in ("paused", "throttled"):
        rule.adopt(SharedState(state, "failure", "x", 1.0), now=1.0)
        assert rule.condition == "off"
