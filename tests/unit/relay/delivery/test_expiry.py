"""When an entry expires, and what its lane does then."""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf
from typing import Any

import pytest
from support.lanes import EPOCH, make_lane

from relay.decide.rate import Rate
from relay.delivery.lane import Lane
from relay.seam.entry import Entry

WRITTEN_S = 1_767_225_600.0  # 2026-01-01


def entry_of(lane: Lane, n: int, *, expires_s: float | None = None, due_s: float | None = None, **more: Any) -> Entry:
    row = (f"m{n}", n, 0, more.get("generation", 0), "t", "s", None, more.get("key"), "{}", "{}", "2026-01-01", None)
    return Entry((*row, instant(expires_s), instant(due_s)), (lane,), EPOCH)


def instant(at_s: float | None) -> str | None:
    return None if at_s is None else str(datetime.fromtimestamp(at_s, UTC))


@pytest.mark.parametrize(
    ("options", "within_s", "at"),
    [
        ({}, None, inf),
        ({"expires_s": 5.0}, None, 5.0),
        ({}, 60.0, WRITTEN_S + 60),
        ({"due_s": WRITTEN_S + 1000}, 60.0, WRITTEN_S + 1060),
        ({"expires_s": WRITTEN_S + 30}, 60.0, WRITTEN_S + 30),
        ({"expires_s": WRITTEN_S + 90}, 60.0, WRITTEN_S + 60),
        ({"expires_s": 5.0, "generation": 1}, 60.0, inf),  # an operator has sent it again
    ],
)
def test_the_first_of_both_times_counts(options: dict[str, Any], within_s: float | None, at: float) -> None:
    assert entry_of(make_lane(), 0, **options).expires_at_s(within_s) == at


def started(lane: Lane, now: float = 100.0) -> list[str]:
    found = []
    while (entry := lane.next(now)) is not None:
        found.append(entry.id)
    return found


def test_nothing_expires_while_the_databases_clock_is_unknown() -> None:
    lane = make_lane(concurrency=10)
    lane.accept(entry_of(lane, 0, expires_s=5.0), None)
    assert started(lane) == ["m0"]


def test_what_has_expired_is_decided_when_it_would_start_and_its_key_goes_on() -> None:
    decided: list[Entry] = []
    lane = make_lane(concurrency=10, on_complete=decided.append)
    lane.admission._lease.clock_offset_s = 1000.0
    lane.accept(entry_of(lane, 0, expires_s=1100.0, key="k"), None)
    lane.accept(entry_of(lane, 1, expires_s=1100.1, key="k"), None)
    assert started(lane) == ["m1"]
    (expired,) = decided
    assert expired.verdict_of("api").state == "expired"
    assert not expired.is_plain


def test_a_batch_takes_nothing_along_that_has_expired() -> None:
    lane = make_lane(concurrency=10)
    lane.admission._lease.clock_offset_s = 0.0
    for n, expires_s in enumerate([None, None, 50.0, None]):
        lane.accept(entry_of(lane, n, expires_s=expires_s), None)
    assert lane.next(100.0) is not None
    assert [each.id for each in lane.companions(lambda _: True, 9, 100.0)] == ["m1"]
    assert started(lane) == ["m3"]


def test_what_has_expired_takes_nothing_of_a_rate_limit() -> None:
    lane = make_lane(concurrency=10, rate=Rate(1.0, 1))
    lane.admission._lease.clock_offset_s = 0.0
    lane.accept(entry_of(lane, 0, expires_s=5.0), None)
    lane.accept(entry_of(lane, 1), None)
    assert started(lane) == []
    assert lane.admission.rate_limit is not None
    lane.admission.rate_limit.answer(1, 1.0, 100.0)
    assert started(lane) == ["m1"]
