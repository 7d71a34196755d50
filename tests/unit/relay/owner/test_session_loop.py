"""How long the owning thread sleeps when a turn is over."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from relay.owner.session_loop import SessionLoop, pause_s
from relay.seam.to_owner import SOON_S

SHORT_POLL_S, SLOW_POLL_S = 0.001, 0.5


def loop_that(*, is_stocked: bool = False, is_hurried: bool = False) -> SessionLoop:
    """Return a loop that has just done something, at a time that does not pass."""
    session: Any = Mock(waking=SimpleNamespace(awake=lambda: None, sleep_s=lambda wanted_s, short_s: wanted_s))
    seam: Any = Mock()
    settings: Any = SimpleNamespace(
        short_poll_s=SHORT_POLL_S, slow_poll_s=SLOW_POLL_S, quiet_s=1.0, destinations={}, page_size=1, window=1
    )
    made = SessionLoop(
        session, 1, seam, settings,
        generation=1, held_before=[0], unconfirmed=[], metrics=Mock(), clock=lambda: 100.0,
    )  # fmt: skip
    stubs: Any = SimpleNamespace(is_stocked=is_stocked), SimpleNamespace(is_hurried=is_hurried)
    made._reader, made._sweeper = stubs
    made._looked_at, made._next_beat = 100.0, 101.0
    made._stir()
    return made


@pytest.mark.parametrize(("is_stocked", "expected"), [(False, SHORT_POLL_S), (True, SOON_S)])
def test_it_polls_less_often_while_every_destination_has_enough_to_send(is_stocked: bool, expected: float) -> None:
    assert loop_that(is_stocked=is_stocked).sleep_s() == pytest.approx(expected)


def test_it_sleeps_long_after_a_quiet_time_but_not_beyond_its_next_beat() -> None:
    quiet = loop_that()
    quiet._busy_until = 0.0
    assert quiet.sleep_s() == SLOW_POLL_S
    quiet._next_beat = 100.25
    assert quiet.sleep_s() == pytest.approx(0.25)


def test_it_does_not_sleep_while_the_sweeper_is_hurried() -> None:
    assert loop_that(is_hurried=True).sleep_s() == 0.0


@pytest.mark.parametrize(
    ("since_look_s", "turn_s", "pause"),
    [(0.001, 0.001, 0.003), (0.0, 0.0, 0.004), (0.003, 0.003, 0.003), (0.007, 0.008, 0.008), (0.09, 0.1, SOON_S)],
    ids=["until the next poll", "a whole poll", "as long as its turn", "also after it", "but verdicts wait"],
)
def test_a_busy_relay_with_little_to_do_pauses_until_the_next_poll_and_as_long_as_its_turn_took(
    since_look_s: float, turn_s: float, pause: float
) -> None:
    assert pause_s(0.004, since_look_s=since_look_s, turn_s=turn_s) == pytest.approx(pause)


def test_the_last_turn_counts() -> None:
    after_a_long_turn = loop_that()
    after_a_long_turn._turn_s = 0.007
    assert after_a_long_turn.sleep_s() == pytest.approx(0.007)
