"""How many attempts a rate limit lets start: never more than it says, and no fewer than it can."""

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.decide.rate import Rate

FIFTY = Rate(50.0, 10)

rates = st.builds(Rate, st.floats(0.01, 10_000), st.integers(1, 1000))
claims = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 500)), min_size=1, max_size=50)


def test_after_a_pause_a_burst_may_start_at_once_and_then_one_after_the_other() -> None:
    granted, arrival_s = FIFTY.claim(0.0, 1000.0, 100)
    assert granted == 10
    assert FIFTY.wait_s(arrival_s, 1000.0) == pytest.approx(1 / 50)
    assert FIFTY.claim(arrival_s, 1000.01, 100)[0] == 0
    assert FIFTY.claim(arrival_s, 1000.02, 100)[0] == 1
    assert FIFTY.claim(arrival_s, 1000.1, 100)[0] == 5


def test_no_more_are_granted_than_are_wanted() -> None:
    assert FIFTY.claim(0.0, 1000.0, 3)[0] == 3


def test_a_clock_that_goes_back_grants_nothing_more() -> None:
    _, arrival_s = FIFTY.claim(0.0, 1000.0, 10)
    assert FIFTY.claim(arrival_s, 990.0, 10)[0] == 0
    assert FIFTY.claim(FIFTY.claim(arrival_s, 990.0, 10)[1], 990.02, 10)[0] == 1  # not only after ten seconds


@pytest.mark.parametrize("stored", [inf, nan, 1e300])
def test_no_stored_number_stops_it_for_longer_than_a_burst_does(stored: float) -> None:
    _, arrival_s = FIFTY.claim(stored, 1000.0, 10)
    assert FIFTY.claim(arrival_s, 1000.2, 10)[0] == 10


@given(rates, claims)
def test_in_any_time_at_most_a_burst_and_the_rate_are_granted(rate: Rate, claims: list[tuple[float, int]]) -> None:
    now = 1.8e9
    arrival_s = 0.0
    found: list[tuple[float, int]] = []
    for pause_s, want in claims:
        now += pause_s
        granted, arrival_s = rate.claim(arrival_s, now, want)
        assert 0 <= granted <= want
        found.append((now, granted))
    for first in range(len(found)):
        total = 0
        for at, granted in found[first:]:
            total += granted
            assert total <= rate.burst + (at - found[first][0]) * rate.per_s * (1 + 1e-9) + 0.01 * rate.per_s


@given(rates, st.integers(1, 500))
def test_one_more_is_granted_when_the_wait_is_over(rate: Rate, want: int) -> None:
    now = 1.8e9
    granted, arrival_s = rate.claim(0.0, now, want)
    assert granted == min(want, rate.burst), "all that it can"
    wait_s = rate.wait_s(arrival_s, now)
    assert rate.claim(arrival_s, now + wait_s + 1e-5, 1)[0] == 1


@pytest.mark.parametrize(("seconds", "count"), [(0.0, 1), (0.1, 5), (0.25, 10), (9.0, 10)])
def test_a_chunk_is_what_fits_into_a_time_and_a_burst(seconds: float, count: int) -> None:
    assert FIFTY.chunk(seconds) == count
