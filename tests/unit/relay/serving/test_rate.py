"""The rate at which one client may call."""

from relay.serving.rate import Rate


def test_a_client_has_its_burst_and_then_its_rate() -> None:
    rate = Rate(1 / 30, 3)
    assert [rate.take("a", 0) for _ in range(4)] == [0, 0, 0, 30]
    assert (rate.take("b", 0), rate.take("a", 29), rate.take("a", 30.1), rate.take("a", 30.1)) == (0, 1, 0, 30)


def test_a_call_that_is_not_counted_takes_nothing_and_is_refused_like_any_other() -> None:
    rate = Rate(1 / 30, 1)
    assert [rate.take("a", 0, count=False) for _ in range(3)] == [0, 0, 0]
    assert (rate.take("a", 0), rate.take("a", 0, count=False)) == (0, 30)
