"""Whose fault was it? An outage costs no message an attempt; a bad message costs other messages nothing."""

import pytest
from support.letters import (
    BUSY,
    DOWN,
    FAILED,
    GONE,
    OUTCOMES,
    REFUSED,
    SILENT,
    THROTTLED,
    Letter,
    attempt,
    breaker,
    states,
)

from relay.decide.breaker import PROBE_WITH, CircuitBreaker
from relay.decide.failures.suspects import PROBE_EVERY_S
from relay.decide.outcome import TAKEN, Outcome, throttled
from relay.decide.verdict import DELIVERED

CONDITIONS = ["closed", "doubted", "open", "throttled", "off"]
FAILURES = [FAILED, REFUSED, SILENT, DOWN]
FIRST_LIMIT = 5


def kind(outcome: Outcome) -> str:
    return outcome.kind


def in_condition(condition: str, *, at: float = 10.0) -> CircuitBreaker[Letter]:
    """Return a breaker in this condition since `at`."""
    rule = breaker()
    if condition == "doubted":
        attempt(rule, Letter(), SILENT, at)
    elif condition == "open":
        for _ in range(FIRST_LIMIT):
            attempt(rule, Letter(), DOWN, at)
    elif condition == "throttled":
        attempt(rule, Letter(), THROTTLED, at)
    elif condition == "off":
        attempt(rule, Letter(), GONE, at)
    assert rule.condition == ("closed" if condition == "doubted" else condition)
    return rule


@pytest.mark.parametrize("outcome", OUTCOMES, ids=kind)
@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("started_at", [5.0, 10.0, 20.0], ids=["before", "at", "after"])
def test_every_delivery_is_ruled_on_or_suspected_for_every_outcome(
    outcome: Outcome, condition: str, started_at: float
) -> None:
    rule = in_condition(condition)
    before = list(rule.suspects.waiting)
    letter = Letter()
    ruling = rule.judge(letter, outcome, started_at, 20.0)
    ruled = [id(each) for each, _ in ruling]
    assert sorted(ruled + [id(each) for each in rule.suspects.waiting]) == sorted(
        id(each) for each in [letter, *before]
    )
    if outcome is TAKEN:
        assert (letter, DELIVERED) in ruling


# ------------------------------------------------------------------------------------------ conviction


@pytest.mark.parametrize("outcome", FAILURES, ids=kind)
def test_one_failure_is_not_charged_yet_and_closes_nothing(outcome: Outcome) -> None:
    rule = breaker()
    assert attempt(rule, Letter(), outcome, 1) == []
    assert rule.condition == "closed"
    assert rule.may_start(1, 0, 32)


@pytest.mark.parametrize(("outcome", "verdict"), [(FAILED, "retry"), (SILENT, "retry"), (REFUSED, "dead")])
def test_what_failed_is_charged_as_soon_as_another_that_started_later_is_taken(outcome: Outcome, verdict: str) -> None:
    rule, bad, good = breaker(), Letter(), Letter()
    attempt(rule, bad, outcome, 1)
    ruling = attempt(rule, good, TAKEN, 2)
    assert [(each, state) for (each, _), state in zip(ruling, states(ruling), strict=True)] == [
        (good, "delivered"),
        (bad, verdict),
    ]
    assert rule.is_clear


def test_what_was_under_way_before_the_failure_proves_nothing() -> None:
    rule, bad = breaker(), Letter()
    rule.judge(bad, FAILED, 1.0, 5.0)
    assert states(rule.judge(Letter(), TAKEN, 4.0, 6.0)) == ["delivered"]
    assert list(rule.suspects.waiting) == [bad]


def test_a_suspect_that_is_taken_proves_nothing_against_the_others_and_has_them_tried_again() -> None:
    """Its own failure was the destination's fault; those of the others may have been too."""
    rule, first, second = breaker(), Letter(), Letter()
    attempt(rule, first, SILENT, 1)
    attempt(rule, second, SILENT, 1.5)
    assert states(rule.suspects.rule_due(2)) == ["released"]
    ruling = attempt(rule, first, TAKEN, 2)
    assert ruling == [(first, DELIVERED), (second, None)]


def test_a_failure_is_charged_at_the_next_one_if_another_message_was_taken_in_between() -> None:
    rule, bad = breaker(), Letter()
    attempt(rule, bad, SILENT, 1)
    rule.suspects.rule_due(2)
    rule.start()
    assert states(attempt(rule, Letter(), TAKEN, 2.5)) == ["delivered"]
    assert states(rule.judge(bad, SILENT, 2, 3)) == ["retry"]


# ------------------------------------------------------------------------------------------------ width


def test_doubt_narrows_the_destination_and_one_success_restores_its_width() -> None:
    rule, widths = breaker(), []
    for now in range(4):
        widths.append(rule.width(32))
        attempt(rule, Letter(), SILENT, now)
    assert widths == [32, 16, 8, 4]
    assert (rule.may_start(4, 1, 32), rule.may_start(4, 2, 32)) == (True, False)
    attempt(rule, Letter(), TAKEN, 5)
    assert rule.width(32) == 32


def test_a_narrowed_destination_still_gets_one_attempt_at_a_time() -> None:
    rule = breaker()
    for now in range(4):
        attempt(rule, Letter(), SILENT, now)
    assert rule.width(2) == 1


def test_the_streak_counts_messages_and_not_attempts() -> None:
    rule, bad = breaker(), Letter()
    for now in (0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 61.0):
        attempt(rule, bad, SILENT, now)
        rule.suspects.rule_due(1e9)
    assert (rule.width(32), rule.condition) == (16, "closed")


# ------------------------------------------------------------------------------------- a lone failure


@pytest.mark.parametrize(("outcome", "verdict"), [(FAILED, ["retry"]), (REFUSED, ["dead"])], ids=["500", "422"])
def test_what_only_a_living_destination_answers_is_charged_even_alone(outcome: Outcome, verdict: list[str]) -> None:
    rule = breaker()
    attempt(rule, Letter(), outcome, 1)
    assert states(rule.suspects.rule_alone()) == verdict


@pytest.mark.parametrize("outcome", [SILENT, DOWN], ids=kind)
def test_what_a_dead_destination_produces_too_is_charged_to_no_message_that_is_alone(outcome: Outcome) -> None:
    rule, letter = breaker(), Letter()
    attempt(rule, letter, outcome, 1)
    assert rule.suspects.rule_alone() == []
    assert (rule.condition, rule.suspects.next_retry_at) == ("closed", 2)
    assert rule.suspects.rule_due(1.9) == []
    assert rule.suspects.rule_due(2) == [(letter, None)]


def test_a_lone_failing_message_is_tried_less_and_less_often_and_never_charged() -> None:
    rule, letter = breaker(), Letter()
    now, waits = 0.0, []
    for _ in range(8):
        assert attempt(rule, letter, SILENT, now) == []
        waits.append(rule.suspects.next_retry_at - now)
        now = rule.suspects.next_retry_at
        assert states(rule.suspects.rule_due(now)) == ["released"]
    assert waits == [1, 2, 4, 8, 16, PROBE_EVERY_S, PROBE_EVERY_S, PROBE_EVERY_S]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_few_failing_messages_each_wait_for_a_backoff_of_their_own(count: int) -> None:
    """They used to be taken back while another attempt was under way, and sent sixty times a second."""
    rule, letters = breaker(), [Letter() for _ in range(count)]
    due = [(0.0, each) for each in letters]
    tries = 0
    while due:
        now, letter = due.pop(0)
        attempt(rule, letter, SILENT, now)
        tries += 1
        assert rule.suspects.rule_due(now) == []
        if not due and (now := rule.suspects.next_retry_at) < 60:
            due = [(now, each) for each, _ in rule.suspects.rule_due(now)]
    assert tries <= 7 * count


def test_what_is_answered_and_not_alone_is_charged_when_nothing_has_cleared_it_up_for_its_backoff() -> None:
    rule = breaker()
    attempt(rule, Letter(), FAILED, 1)
    assert rule.suspects.rule_due(1.9) == []
    assert states(rule.suspects.rule_due(2)) == ["retry"]


def test_a_delivery_that_leaves_memory_is_forgotten() -> None:
    rule, gone, stays = breaker(), Letter(), Letter()
    attempt(rule, gone, SILENT, 1)
    attempt(rule, stays, SILENT, 1)
    rule.suspects.forget(gone)
    assert states(attempt(rule, Letter(), TAKEN, 2)) == ["delivered", "retry"]


def test_another_object_may_stand_for_a_suspect_that_is_tried_again() -> None:
    """A suspect that is taken was innocent: the others are released, and not charged."""
    rule, before, after, other = breaker(), Letter(7), Letter(7), Letter()
    attempt(rule, before, SILENT, 1)
    attempt(rule, other, SILENT, 1)
    rule.suspects.rule_due(2)
    attempt(rule, other, SILENT, 2)
    rule.suspects.replace(before, after)
    assert attempt(rule, after, TAKEN, 3)[1:] == [(other, None)]


# ------------------------------------------------------------------------------------------------ down


@pytest.mark.parametrize("outcome", FAILURES, ids=kind)
def test_five_failures_in_a_row_at_a_healthy_destination_open_the_breaker_and_are_charged_to_none(
    outcome: Outcome,
) -> None:
    rule = breaker()
    rulings = [attempt(rule, Letter(), outcome, n) for n in range(FIRST_LIMIT)]
    assert [states(r) for r in rulings] == [[], [], [], [], ["released"] * FIRST_LIMIT]
    assert (rule.condition, rule.reason, list(rule.suspects.waiting)) == ("open", outcome.reason, [])


def test_where_a_third_of_the_requests_fails_it_takes_fourteen() -> None:
    rule = breaker()
    for _ in range(200):
        attempt(rule, Letter(), TAKEN, 0)
        attempt(rule, Letter(), TAKEN, 0)
        attempt(rule, Letter(), FAILED, 0)
    attempt(rule, Letter(), TAKEN, 0)
    failures = 0
    while rule.condition == "closed":
        attempt(rule, Letter(), FAILED, failures)
        failures += 1
    assert failures == 14  # ceil(5 * ln 0.05 / ln 0.33)


def test_an_open_breaker_is_probed_once_after_each_wait_and_the_waits_grow() -> None:
    rule = in_condition("open", at=0)
    waits = []
    now = 0.0
    for _ in range(7):
        waits.append(rule.until - now)
        assert not rule.may_start(rule.until - 0.01, 0, 32)
        now = rule.until
        assert rule.may_start(now, 0, 32)
        rule.start()
        assert not rule.may_start(now, 0, 32)
        assert states(rule.judge(Letter(), FAILED, now, now)) == ["released"]
    assert waits == [1, 2, 4, 8, 16, PROBE_EVERY_S, PROBE_EVERY_S]


def probe(rule: CircuitBreaker[Letter], outcome: Outcome, *, others: int, takes_s: float = 0.1) -> tuple[int, float]:
    """Probe with as many messages as may be tried; return how many they were, and when the last attempt ended."""
    now, until = rule.until, rule.until
    for count in range(1, 100):
        assert rule.may_start(now, 0, 32)
        rule.start()
        rule.judge(Letter(), outcome, now, now + takes_s, others=others)
        now += takes_s
        if rule.until != until:
            return count, now
    raise AssertionError("a probe never ends")


@pytest.mark.parametrize(("others", "count"), [(0, 1), (1, 2), (3, 4), (7, PROBE_WITH), (100, PROBE_WITH)])
@pytest.mark.parametrize("outcome", [FAILED, REFUSED, SILENT], ids=kind)
def test_a_probe_tries_several_different_messages_where_they_may_be_at_fault(
    outcome: Outcome, others: int, count: int
) -> None:
    rule = in_condition("open", at=0)
    assert probe(rule, outcome, others=others) == (count, pytest.approx(1 + 0.1 * count))
    assert rule.until == pytest.approx(1 + 0.1 * count + 2)
    assert list(rule.suspects.waiting) == []


def test_a_probe_ends_where_no_message_can_be_at_fault_and_where_attempts_take_long() -> None:
    assert probe(in_condition("open", at=0), DOWN, others=100)[0] == 1
    assert probe(in_condition("open", at=0), SILENT, others=100, takes_s=2.0)[0] == 3
    assert probe(in_condition("open", at=0), SILENT, others=100, takes_s=30.0)[0] == 1


def test_a_probe_sends_no_more_after_one_message_was_taken() -> None:
    rule = in_condition("open", at=0)
    rule.start()
    rule.judge(Letter(), FAILED, 1.0, 1.1, others=100)
    rule.start()
    assert states(rule.judge(Letter(), TAKEN, 1.1, 1.2, others=100)) == ["delivered"]
    assert (rule.condition, rule.pauses, list(rule.suspects.waiting)) == ("closed", 0, [])


def test_an_outage_of_a_minute_gets_fewer_than_fifty_attempts_from_probes() -> None:
    rule, attempts = in_condition("open", at=0), 0
    while rule.until < 60:
        attempts += probe(rule, FAILED, others=20_000)[0]
    assert attempts == 5 * PROBE_WITH < 50


@pytest.mark.parametrize("outcome", FAILURES, ids=kind)
def test_what_was_under_way_when_it_went_down_does_not_make_the_wait_longer(outcome: Outcome) -> None:
    rule = in_condition("open", at=10)
    until, pauses = rule.until, rule.pauses
    for _ in range(20):
        assert states(rule.judge(Letter(), outcome, 9.0, 10.5)) == ["released"]
    assert (rule.until, rule.pauses) == (until, pauses)


def test_what_was_under_way_when_it_went_down_does_not_bring_it_back() -> None:
    rule = in_condition("open", at=10)
    assert states(rule.judge(Letter(), TAKEN, 9.0, 10.5)) == ["delivered"]
    assert rule.condition == "open"


def test_a_probe_that_is_taken_closes_the_breaker_and_forgets_the_waits() -> None:
    rule = in_condition("open", at=0)
    attempt(rule, Letter(), DOWN, 1)
    assert states(attempt(rule, Letter(), TAKEN, 3)) == ["delivered"]
    assert (rule.condition, rule.pauses) == ("closed", 0)


def test_after_an_outage_the_width_doubles_with_each_success_until_it_is_full() -> None:
    rule = in_condition("open", at=0)
    widths = []
    while not rule.is_clear:
        attempt(rule, Letter(), TAKEN, 1)
        widths.append(rule.width(32))
    assert widths[:6] == [2, 4, 8, 16, 32, 32]
    assert not rule.is_in_doubt


def test_another_than_the_oldest_is_tried_after_a_few_failures_in_a_row_and_until_an_outage_is_over() -> None:
    rule = breaker()
    doubts = []
    for _ in range(3):
        attempt(rule, Letter(), FAILED, 0)
        doubts.append(rule.is_in_doubt)
    attempt(rule, Letter(), TAKEN, 1)
    assert (doubts, rule.is_in_doubt) == ([False, False, True], False)
    rule = in_condition("open", at=0)
    assert rule.is_in_doubt
    attempt(rule, Letter(), TAKEN, 1)
    assert rule.is_in_doubt


def test_an_attempt_that_was_to_probe_and_did_not_leaves_the_probe_to_another() -> None:
    rule = in_condition("open", at=0)
    rule.start()
    rule.withdraw()
    assert rule.may_start(1, 0, 1)


# --------------------------------------------------------------------------------- throttled, off, busy


def test_too_many_requests_make_everything_wait_as_long_as_was_asked_and_charge_nothing() -> None:
    rule = breaker()
    attempt(rule, Letter(), SILENT, 0)
    assert states(attempt(rule, Letter(), throttled("429", 7), 1)) == ["released", "released"]
    assert (rule.condition, rule.may_start(7.9, 0, 1), rule.may_start(8, 0, 1)) == ("throttled", False, True)
    assert (rule.end_wait(7.9), rule.end_wait(8), rule.end_wait(8)) == (False, True, False)
    assert rule.condition == "closed"


@pytest.mark.parametrize(
    ("asked", "wait_s"), [(float("nan"), 1), (-3, 1), (0, 1), (60, 60), (1e9, 3600), (float("inf"), 3600)]
)
def test_a_destination_can_make_us_wait_neither_for_ever_nor_for_no_time(asked: float, wait_s: float) -> None:
    rule = breaker()
    attempt(rule, Letter(), throttled("429", asked), 0)
    assert rule.until == wait_s


def test_the_longest_wait_that_was_asked_for_counts() -> None:
    rule = breaker()
    rule.judge(Letter(), throttled("429", 60), 0, 0)
    rule.judge(Letter(), throttled("429", 2), 0, 1)
    assert rule.until == 60


def test_gone_is_for_good_until_an_operator_resumes_it() -> None:
    rule = breaker()
    assert states(attempt(rule, Letter(), GONE, 1)) == ["released"]
    assert rule.condition == "off"
    assert not rule.may_start(1e9, 0, 1)
    assert states(rule.judge(Letter(), TAKEN, 0, 2)) == ["delivered"]
    assert rule.condition == "off"
    rule.resume(3)
    assert rule.may_start(3, 0, 1)


def test_busy_with_this_very_message_is_charged_and_says_nothing_about_the_destination() -> None:
    rule = breaker()
    assert states(attempt(rule, Letter(), BUSY, 1)) == ["retry"]
    assert rule.is_clear


# the moves that the essay in relay/decide/breaker.py draws
@pytest.mark.parametrize(
    ("condition", "outcome", "becomes"),
    [
        ("closed", TAKEN, "closed"),
        ("closed", FAILED, "closed"),
        ("closed", DOWN, "closed"),
        ("closed", THROTTLED, "throttled"),
        ("closed", GONE, "off"),
        ("closed", BUSY, "closed"),
        ("doubted", TAKEN, "closed"),
        ("doubted", THROTTLED, "throttled"),
        ("open", TAKEN, "closed"),
        ("open", FAILED, "open"),
        ("open", THROTTLED, "throttled"),
        ("open", GONE, "off"),
        ("throttled", FAILED, "throttled"),
        ("throttled", DOWN, "throttled"),
        ("off", FAILED, "off"),
        ("off", THROTTLED, "off"),
    ],
)
def test_a_breaker_goes_from_condition_to_condition_as_drawn(condition: str, outcome: Outcome, becomes: str) -> None:
    rule = in_condition(condition)
    if rule.may_start(11.0, 0, 1):
        rule.start()
    rule.judge(Letter(), outcome, 11.0, 11.0)
    assert rule.condition == becomes
