"""The length of a run of failures that chance explains."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.decide.failures.failure_rate import FailureRate


def after(successes_per_run: int, failures_per_run: int, runs: int = 200) -> FailureRate:
    rate = FailureRate()
    for _ in range(runs):
        rate.taken += successes_per_run
        rate.add_run(failures_per_run)
    return rate


@pytest.mark.parametrize(
    ("taken", "failed", "run"), [(99, 1, 5), (9, 1, 7), (7, 3, 13), (1, 1, 22), (1, 9, 68), (0, 1, 68)]
)
def test_the_more_fails_the_longer_a_run_is_put_down_to_chance(taken: int, failed: int, run: int) -> None:
    assert abs(after(taken, failed).improbable_run - run) <= 1


def test_nothing_is_known_of_a_destination_at_first() -> None:
    assert (FailureRate().share, FailureRate().improbable_run) == (0.0, 5)


def test_what_is_long_ago_counts_for_nothing() -> None:
    rate = after(0, 1)
    rate.taken += 2_000
    assert (rate.share <= 0.05, rate.improbable_run) == (True, 5)
    for _ in range(50):
        rate.taken += 100
        rate.add_run(0)
    assert (rate.share < 0.001, rate.improbable_run) == (True, 5)


@example(runs=[(0, 51)] * 3)  # rounding once made the share a little more than 1
@given(runs=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 80)), max_size=30))
def test_a_share_is_between_0_and_1_and_a_run_between_5_and_68(runs: list[tuple[int, int]]) -> None:
    rate = FailureRate()
    for taken, failures in runs:
        rate.taken += taken
        rate.add_run(failures)
        assert 0 <= rate.share <= 1
        assert 5 <= rate.improbable_run <= 68
