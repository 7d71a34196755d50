"""The common budget of a rate limit: claims in the database, at once and over time, agree with the arithmetic."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

import pytest
from support.desk import Desk

from relay.decide.rate import Rate

SLOW = Rate(0.01, 7, "36/h")  # one in a hundred seconds: none comes while a test runs
FAST = Rate(200.0, 20, "200/s")


def test_a_burst_is_granted_and_then_nothing_before_its_time(desk: Desk) -> None:
    session = desk.open()
    assert session.ownership.claim_rate("a", 3, SLOW) == (3, 0.0)
    assert session.ownership.claim_rate("a", 3, SLOW) == (3, 0.0)
    granted, wait_s = session.ownership.claim_rate("a", 3, SLOW)
    assert (granted, wait_s) == (1, pytest.approx(100, abs=30))
    assert session.ownership.claim_rate("a", 3, SLOW)[0] == 0


def test_the_table_agrees_with_the_arithmetic(desk: Desk) -> None:
    """The remaining budget and the wait agree, for any claim at any arrival."""
    session = desk.open()
    for ahead_s, want in [
        (-1e9, 5),
        (-1.0, 99),
        (0.0, 1),
        (150.5, 4),
        (150.5, 99),
        (649.0, 9),
        (651.0, 9),
        (2000.0, 1),
    ]:
        session.ownership.claim_rate("a", 0, SLOW)
        arrive(desk, ahead_s)
        expected, arrival_s = SLOW.claim(ahead_s, 0.0, want)
        granted, wait_s = session.ownership.claim_rate("a", want, SLOW)
        assert granted == expected, (ahead_s, want)
        assert wait_s == pytest.approx(SLOW.wait_s(arrival_s, 0.0), abs=30), (ahead_s, want)


def arrive(desk: Desk, ahead_s: float) -> None:
    """Set the theoretical arrival to this time ahead of now."""
    now = "extract(epoch FROM clock_timestamp())"
    if desk.kind == "sqlite":
        now = "(julianday('now') - 2440587.5) * 86400.0"
    desk.database.execute(f"UPDATE outbox_rate SET arrival_s = {now} + :ahead", ahead=ahead_s)


def test_destinations_have_budgets_of_their_own(desk: Desk) -> None:
    session = desk.open()
    assert session.ownership.claim_rate("a", 9, SLOW)[0] == 7
    assert session.ownership.claim_rate("b", 9, SLOW)[0] == 7


def test_what_is_used_up_stays_so_when_the_relay_starts_again(desk: Desk) -> None:
    desk.open().ownership.claim_rate("a", 9, SLOW)
    desk.sessions.pop().close()
    assert desk.open().ownership.claim_rate("a", 9, SLOW)[0] == 0


def test_relays_that_claim_at_once_share_one_budget(pg: Desk) -> None:
    sessions = [pg.open(f"relay-{n}") for n in range(4)]
    began_at = monotonic()

    def claim(session: Any) -> int:
        return sum(session.ownership.claim_rate("a", 5, FAST)[0] for _ in range(100))

    with ThreadPoolExecutor(len(sessions)) as pool:
        granted = sum(pool.map(claim, sessions))
    assert FAST.burst <= granted <= FAST.burst + FAST.per_s * (monotonic() - began_at)


def test_a_budget_that_was_taken_away_is_made_again(desk: Desk) -> None:
    session = desk.open()
    session.ownership.claim_rate("a", 9, SLOW)
    desk.database.execute("DELETE FROM outbox_rate")
    assert session.ownership.claim_rate("a", 9, SLOW)[0] == 7
