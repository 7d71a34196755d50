"""A destination's row: what one relay writes there stops the others, and no relay that knows less overwrites it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.desk import Desk

from relay.decide.shared_state import Finding, SharedState

PAUSED = Finding("a", "paused", "connection refused", 30.0, pauses=3)


def shared_state(session: Any) -> SharedState:
    found: SharedState = session.ownership.beat([], 0).shared_states["a"]
    return found


def test_what_one_session_reports_the_next_one_finds(desk: Desk) -> None:
    desk.register("a")
    session = desk.owner()
    session.ownership.report(PAUSED)
    found = shared_state(session)
    assert (found.state, found.paused_by, found.reason, found.pauses) == ("paused", "failure", "connection refused", 3)
    assert found.wait_s == pytest.approx(30, abs=10)
    assert 0 <= found.age_s < 10
    assert found.is_down


def test_what_is_off_stays_off_until_an_operator_resumes_it(desk: Desk) -> None:
    desk.register("a")
    session = desk.owner()
    session.ownership.report(Finding("a", "off", "410"))
    session.ownership.report(Finding("a", "healthy"))
    session.ownership.report(Finding("a", "throttled", "429", 5.0))
    assert shared_state(session).state == "off"


def test_a_lone_failure_is_shown_and_stops_no_other_delivery(desk: Desk) -> None:
    desk.register("a")
    session = desk.owner()
    session.ownership.report(Finding("a", "paused", "500"))
    assert not shared_state(session).is_down
    session.ownership.report(Finding("a", "healthy"))
    assert shared_state(session).state == "healthy"


@pytest.mark.parametrize("state", ["paused", "throttled"])
@pytest.mark.parametrize("until", ["9998-01-01 00:00:00", "0002-01-02 00:00:00"])
def test_a_wait_from_before_the_clock_was_set_back_is_over(desk: Desk, state: str, until: str) -> None:
    desk.register("a")
    session = desk.owner()
    session.ownership.report(replace(PAUSED, state=state))
    desk.database.execute(f"UPDATE outbox_destination SET until = '{until}', changed_at = '{until}'")
    wait_s = shared_state(session).wait_s
    assert wait_s is not None
    assert wait_s <= 0
    if state == "paused":
        claimed, found = session.ownership.claim_probe("a")
        assert claimed
        assert found.wait_s is None or 0 < found.wait_s < 30


@pytest.mark.parametrize(("state", "column"), [("paused", "reason"), ("healthy", "note")])
def test_text_that_no_database_stores_is_replaced_in_a_report(desk: Desk, state: str, column: str) -> None:
    desk.register("a")
    session = desk.owner()
    session.ownership.report(replace(Finding("a", state), **{column: "half a pair \ud83d, a nul \0"}))
    assert desk.database.scalar(f"SELECT {column} FROM outbox_destination") == "half a pair ?, a nul \ufffd"


# ------------------------------------------------------------------------------- several relays: PostgreSQL


@pytest.fixture
def two(pg: Desk) -> tuple[Any, Any]:
    pg.register("a")
    return pg.open("one"), pg.open("two")


def due(pg: Desk) -> None:
    """Let time pass until a probe is due."""
    pg.database.execute("UPDATE outbox_destination SET until = clock_timestamp() - interval '1 second'")


def test_ten_that_find_the_same_outage_declare_one(two: tuple[Any, Any]) -> None:
    one, other = two
    one.ownership.report(PAUSED)
    other.ownership.report(Finding("a", "paused", "something else", 1.0, pauses=1))
    assert shared_state(one).reason == "connection refused"


def test_a_probe_is_claimed_by_one_and_only_when_it_is_due(pg: Desk, two: tuple[Any, Any]) -> None:
    one, other = two
    one.ownership.report(PAUSED)
    assert one.ownership.claim_probe("a")[0] is False
    due(pg)
    claims = [session.ownership.claim_probe("a") for session in (other, one)]
    assert [claimed for claimed, _ in claims] == [True, False]
    assert 0 < (claims[1][1].wait_s or 0) <= 15


def test_no_relay_claims_a_destination_that_is_healthy_or_paused_by_an_operator(pg: Desk, two: tuple[Any, Any]) -> None:
    one, _ = two
    assert one.ownership.claim_probe("a")[0] is False
    pg.database.execute("UPDATE outbox_destination SET state = 'paused', paused_by = 'operator', reason = 'lunch'")
    assert one.ownership.claim_probe("a")[0] is False


def test_a_probe_that_failed_makes_the_wait_longer_for_all(pg: Desk, two: tuple[Any, Any]) -> None:
    one, other = two
    one.ownership.report(PAUSED)
    due(pg)
    other.ownership.claim_probe("a")
    other.ownership.report(Finding("a", "paused", "still refused", 60.0, pauses=4, is_probe=True))
    found = shared_state(one)
    assert (found.reason, found.pauses) == ("still refused", 4)
    assert found.wait_s == pytest.approx(60, abs=10)


def test_a_relay_that_did_not_probe_cannot_end_the_common_pause(pg: Desk, two: tuple[Any, Any]) -> None:
    one, other = two
    one.ownership.report(PAUSED)
    other.ownership.report(Finding("a", "healthy"))
    assert shared_state(one).is_down
    other.ownership.report(Finding("a", "healthy", is_probe=True))
    assert shared_state(one).state == "healthy"


def test_a_pause_that_was_disputed_is_not_declared_again_for_a_while(pg: Desk, two: tuple[Any, Any]) -> None:
    one, other = two
    one.ownership.report(PAUSED)
    other.ownership.report(Finding("a", "healthy", disputes=True))
    one.ownership.report(PAUSED)
    assert shared_state(other).state == "healthy"
    pg.database.execute("UPDATE outbox_destination SET disputed_at = disputed_at - interval '2 minutes'")
    one.ownership.report(PAUSED)
    assert shared_state(other).state == "paused"


def test_a_disputed_pause_is_shown_and_stops_no_other_relay(two: tuple[Any, Any]) -> None:
    one, other = two
    one.ownership.report(PAUSED)
    other.ownership.report(Finding("a", "healthy", disputes=True))
    one.ownership.report(Finding("a", "paused", "500"))
    assert shared_state(other).state == "paused"
    assert not shared_state(other).is_down


def test_a_wait_that_the_destination_asked_for_holds_for_every_relay(two: tuple[Any, Any]) -> None:
    one, other = two
    one.ownership.report(Finding("a", "throttled", "429", 20.0))
    found = shared_state(other)
    assert found.is_down
    assert found.wait_s == pytest.approx(20, abs=10)
