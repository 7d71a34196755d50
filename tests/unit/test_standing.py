"""What relays know of a destination together: one relay's finding stops the others, unless they know better."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from relay.decide.backoff import Policy
from relay.decide.blame import Blame
from relay.decide.outcome import TAKEN, unreachable
from relay.decide.standing import FRESH_S, MARGIN_S, Standing


@pytest.mark.parametrize(
    ("standing", "down"),
    [
        (Standing("healthy"), False),
        (Standing("paused", "failure", "500", 3.0), True),
        (Standing("paused", "failure", "500", -3.0), True),  # a probe is due, and only that
        (Standing("paused", "failure", "500", None), False),  # one failing message and no other evidence
        (Standing("paused", "operator", "lunch", None), False),  # not for relays to judge
        (Standing("throttled", "failure", "429", 3.0), True),
        (Standing("throttled", "failure", "429", -0.1), False),
        (Standing("off", "failure", "410", None), True),
    ],
)
def test_which_rows_stop_a_relay(standing: Standing, down: bool) -> None:
    assert standing.is_down is down


def test_only_a_success_that_began_after_the_pause_disputes_it() -> None:
    declared = Standing("paused", "failure", "500", 1.0, age_s=5.0)
    assert declared.is_disputed_by(4.0)
    assert not declared.is_disputed_by(5.0 - MARGIN_S)
    assert not declared.is_disputed_by(60.0)


def test_a_relay_at_work_gets_a_moment_to_find_out_by_itself() -> None:
    assert Standing("paused", "failure", "500", 1.0, age_s=FRESH_S / 2).is_fresh
    assert not Standing("paused", "failure", "500", 1.0, age_s=FRESH_S).is_fresh


class Letter:
    attempts = 0
    failing_for_s = 0.0


@pytest.fixture
def blame() -> Blame[Any]:
    return Blame(Policy())


def test_a_pause_that_was_adopted_goes_on_where_the_others_were(blame: Blame[Any]) -> None:
    """The next failed probe waits longer than theirs did, not as long as a first one."""
    blame.adopt(Standing("paused", "failure", "refused", 8.0, pauses=4), now=100.0)
    assert (blame.condition, blame.reason, blame.until) == ("paused", "refused", 108.0)
    blame.start()
    assert blame.judge(Letter(), unreachable("refused"), 108.0, 109.0)[0][1] is None
    assert blame.until == 109.0 + Policy().ceiling_s(5)


@pytest.mark.parametrize("state", ["paused", "throttled", "off"])
def test_adopting_charges_nobody_and_absolves_whoever_was_under_suspicion(blame: Blame[Any], state: str) -> None:
    suspect = Letter()
    blame.start()
    blame.judge(suspect, unreachable("x"), 1.0, 1.0)
    blame.resume(2.0)
    ruling = blame.adopt(Standing(state, "failure", "x", 5.0), now=3.0)
    assert all(verdict is None for _, verdict in ruling)
    assert blame.condition == state


def test_a_probe_that_is_taken_ends_an_adopted_pause(blame: Blame[Any]) -> None:
    blame.adopt(Standing("paused", "failure", "x", 1.0, pauses=3), now=0.0)
    blame.start()
    blame.judge(Letter(), TAKEN, 1.0, 2.0)
    assert (blame.condition, blame.pauses) == ("healthy", 0)


def test_what_is_switched_off_stays_off(blame: Blame[Any]) -> None:
    blame.adopt(Standing("off", "failure", "410"), now=0.0)
    later: list[Callable[[], object]] = [
        lambda: blame.adopt(Standing("paused", "failure", "x", 1.0), now=1.0),
        lambda: blame.adopt(Standing("throttled", "failure", "x", 1.0), now=1.0),
    ]
    for adopt in later:
        adopt()
        assert blame.condition == "off"
