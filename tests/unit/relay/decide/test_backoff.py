"""The backoff: doubling, capped, never shorter after more failures, and always finite."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.decide.backoff import Policy, clamped, jittered

DECADE_S = 10 * 365 * 86_400

policies = st.builds(
    Policy,
    backoff_s=st.floats(0.001, 3600),
    backoff_max_s=st.floats(0.001, 86_400),
)


def test_the_wait_doubles_from_one_second_to_one_hour() -> None:
    policy = Policy()
    assert [policy.ceiling_s(n) for n in range(1, 15)] == [
        1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600,
    ]  # fmt: skip


@given(policies, st.integers(0, 10_000), st.integers(0, 10_000))
def test_more_failures_never_mean_a_shorter_wait(policy: Policy, one: int, other: int) -> None:
    fewer, more = sorted((one, other))
    assert policy.ceiling_s(fewer) <= policy.ceiling_s(more)


@given(policies, st.integers(-10, 10**9))
def test_no_wait_is_longer_than_the_longest_allowed(policy: Policy, failures: int) -> None:
    assert 0 < policy.ceiling_s(failures) <= policy.backoff_max_s


@given(st.floats(0, 86_400), st.floats(0, 1, exclude_max=True))
def test_jitter_stays_between_nothing_and_the_ceiling(ceiling_s: float, chance: float) -> None:
    assert 0 <= jittered(ceiling_s, chance) <= ceiling_s


def test_waits_are_spread_over_the_whole_time_up_to_the_ceiling() -> None:
    assert [jittered(8, chance) for chance in (0, 0.25, 0.5, 0.75)] == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        (None, 1),
        (math.nan, 1),
        (-5.0, 1),
        (-math.inf, 1),
        (0.0, 1),
        (0.3, 1),
        (42.5, 42.5),
        (DECADE_S, 3600),
        (math.inf, 3600),
    ],
)
def test_what_a_destination_asks_for_is_granted_within_reason(asked: float | None, granted: float) -> None:
    assert clamped(asked) == granted


@given(st.none() | st.floats())
def test_the_wait_that_a_destination_asks_for_is_clamped_to_one_second_and_one_hour(asked: float | None) -> None:
    assert 1 <= clamped(asked) <= 3600
