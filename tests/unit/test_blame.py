"""Whose fault was it? An outage costs nobody an attempt; a poison message costs nobody else a thing."""

import pytest
from support.letters import BUSY, DOWN, FAILED, GONE, OUTCOMES, REFUSED, THROTTLED, Letter, blame

from relay.decide.blame import PROBE_EVERY_S, SUSPECTS_MEAN_BROKEN, Blame
from relay.decide.outcome import TAKEN, Outcome, busy, throttled
from relay.decide.verdict import DELIVERED, Verdict

CONDITIONS = ["healthy", "doubted", "paused", "open", "throttled", "off"]


def attempt(rule: Blame[Letter], letter: Letter, outcome: Outcome, now: float) -> list[tuple[Letter, Verdict | None]]:
    """One attempt, by itself, that starts and ends at this moment."""
    assert rule.may_start(now)
    rule.start()
    return rule.judge(letter, outcome, now, now)


def states(ruling: list[tuple[Letter, Verdict | None]]) -> list[str]:
    return [verdict.state if verdict else "absolved" for _, verdict in ruling]


def in_condition(condition: str, *, at: float = 10.0) -> Blame[Letter]:
    """A destination in this condition since `at`."""
    rule = blame()
    if condition == "doubted":
        attempt(rule, Letter(), FAILED, at)
    elif condition == "paused":
        attempt(rule, Letter(), DOWN, at)
    elif condition == "open":
        attempt(rule, Letter(), FAILED, at)
        rule.exhausted(at)
    elif condition == "throttled":
        attempt(rule, Letter(), THROTTLED, at)
    elif condition == "off":
        attempt(rule, Letter(), GONE, at)
    assert rule.condition == ("paused" if condition == "open" else condition)
    assert rule.is_open == (condition == "open")
    return rule


@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda o: o.kind)
@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("started_at", [5.0, 10.0, 20.0], ids=["before", "at", "after"])
def test_there_is_a_ruling_for_every_outcome_in_every_condition(
    outcome: Outcome, condition: str, started_at: float
) -> None:
    rule = in_condition(condition)
    before = [s.delivery for s in rule.suspects]
    letter = Letter()
    ruling = rule.judge(letter, outcome, started_at, 20.0)
    ruled = [id(each) for each, _ in ruling]
    suspected = [id(s.delivery) for s in rule.suspects]
    assert sorted(ruled + suspected) == sorted(id(each) for each in [letter, *before])
    if outcome is TAKEN:
        assert (letter, DELIVERED) in ruling


@pytest.mark.parametrize("outcome", [FAILED, REFUSED], ids=lambda o: o.kind)
def test_one_failure_is_nobodys_fault_yet(outcome: Outcome) -> None:
    rule = blame()
    assert attempt(rule, Letter(), outcome, 1) == []
    assert rule.condition == "doubted"


def test_a_destination_in_doubt_gets_one_attempt_at_a_time() -> None:
    rule = in_condition("doubted")
    assert rule.may_start(11)
    rule.start()
    assert not rule.may_start(11)


def test_what_failed_is_charged_as_soon_as_another_that_started_later_is_taken() -> None:
    rule, poison, good = blame(), Letter(1), Letter(2)
    attempt(rule, poison, FAILED, 1)
    ruling = attempt(rule, good, TAKEN, 2)
    assert [(letter.number, state) for (letter, _), state in zip(ruling, states(ruling), strict=True)] == [
        (2, "delivered"),
        (1, "retry"),
    ]
    assert rule.condition == "healthy"


def test_what_was_refused_is_dead_as_soon_as_another_that_started_later_is_taken() -> None:
    rule = blame()
    attempt(rule, Letter(), REFUSED, 1)
    assert states(attempt(rule, Letter(), TAKEN, 2)) == ["delivered", "dead"]


def test_what_was_under_way_before_the_failure_proves_nothing() -> None:
    rule = blame()
    rule.start()
    rule.start()
    rule.judge(Letter(1), FAILED, 1.0, 5.0)
    assert states(rule.judge(Letter(2), TAKEN, 4.0, 6.0)) == ["delivered"]
    assert rule.condition == "doubted"
    assert [s.delivery.number for s in rule.suspects] == [1]


def test_five_failures_in_a_row_pause_the_destination_and_charge_nobody() -> None:
    rule = blame()
    rulings = [attempt(rule, Letter(n), FAILED, n) for n in range(1, SUSPECTS_MEAN_BROKEN + 1)]
    assert [states(r) for r in rulings] == [[], [], [], [], ["absolved"] * 5]
    assert (rule.condition, rule.reason, rule.suspects) == ("paused", "500", [])


def test_when_every_message_is_refused_the_destination_is_broken_and_nothing_is_dead() -> None:
    rule = blame()
    rulings = [attempt(rule, Letter(n), REFUSED, n) for n in range(1, SUSPECTS_MEAN_BROKEN + 1)]
    assert states(rulings[-1]) == ["absolved"] * 5
    assert rule.condition == "paused"


def test_a_refusal_with_nothing_else_to_try_is_the_messages_fault() -> None:
    rule = blame()
    attempt(rule, Letter(), REFUSED, 1)
    assert states(rule.exhausted(1)) == ["dead"]
    assert rule.condition == "healthy"


def test_a_failure_with_nothing_else_to_try_is_nobodys_fault_and_is_tried_again_after_a_while() -> None:
    rule, letter = blame(), Letter()
    attempt(rule, letter, FAILED, 1)
    assert rule.exhausted(1) == []
    assert (rule.condition, rule.until) == ("paused", 2)
    assert rule.take_back(1.9) == []
    assert rule.take_back(2) == [letter]
    assert states(attempt(rule, letter, TAKEN, 2)) == ["delivered"]
    assert rule.condition == "healthy"


def test_a_lone_failing_message_is_tried_less_and_less_often_and_never_charged() -> None:
    rule, letter = blame(), Letter()
    now, waits = 0.0, []
    for _ in range(8):
        assert attempt(rule, letter, FAILED, now) == []
        assert rule.exhausted(now) == []
        waits.append(rule.until - now)
        now = rule.until
        assert rule.take_back(now) == [letter]
    assert waits == [1, 2, 4, 8, 16, PROBE_EVERY_S, PROBE_EVERY_S, PROBE_EVERY_S]


def test_a_newcomer_is_tried_at_once_while_only_a_lone_failure_speaks_against_the_destination() -> None:
    rule = in_condition("open", at=1)
    assert rule.may_start(1.1)
    assert states(attempt(rule, Letter(), TAKEN, 1.1)) == ["delivered", "retry"]
    assert rule.condition == "healthy"


def test_a_destination_that_cannot_be_reached_is_paused_at_once_and_nobody_is_charged() -> None:
    rule = blame()
    assert states(attempt(rule, Letter(), DOWN, 1)) == ["absolved"]
    assert (rule.condition, rule.until, rule.reason) == ("paused", 2, "connection refused")


def test_losing_the_destination_absolves_whoever_was_under_suspicion() -> None:
    rule = blame()
    attempt(rule, Letter(1), REFUSED, 1)
    assert states(attempt(rule, Letter(2), DOWN, 2)) == ["absolved", "absolved"]


def test_a_paused_destination_is_probed_once_after_each_wait_and_the_waits_grow() -> None:
    rule = in_condition("paused", at=0)
    waits = []
    now = 0.0
    for _ in range(7):
        waits.append(rule.until - now)
        assert not rule.may_start(rule.until - 0.01)
        now = rule.until
        assert rule.may_start(now)
        rule.start()
        assert not rule.may_start(now)
        assert states(rule.judge(Letter(), FAILED, now, now)) == ["absolved"]
    assert waits == [1, 2, 4, 8, 16, PROBE_EVERY_S, PROBE_EVERY_S]


@pytest.mark.parametrize("outcome", [FAILED, REFUSED, DOWN], ids=lambda o: o.kind)
def test_what_was_under_way_when_it_went_down_does_not_make_the_wait_longer(outcome: Outcome) -> None:
    rule = in_condition("paused", at=10)
    until, pauses = rule.until, rule.pauses
    for _ in range(20):
        assert states(rule.judge(Letter(), outcome, 9.0, 10.5)) == ["absolved"]
    assert (rule.until, rule.pauses) == (until, pauses)


def test_what_was_under_way_when_it_went_down_does_not_bring_it_back() -> None:
    rule = in_condition("paused", at=10)
    assert states(rule.judge(Letter(), TAKEN, 9.0, 10.5)) == ["delivered"]
    assert rule.condition == "paused"


def test_a_probe_that_is_taken_brings_it_back_and_forgets_the_waits() -> None:
    rule = in_condition("paused", at=0)
    attempt(rule, Letter(), DOWN, 1)
    assert states(attempt(rule, Letter(), TAKEN, 3)) == ["delivered"]
    assert rule.condition == "healthy"
    attempt(rule, Letter(), DOWN, 4)
    assert rule.until == 5


def test_too_many_requests_make_everybody_wait_as_long_as_was_asked_and_charge_nobody() -> None:
    rule = blame()
    assert states(attempt(rule, Letter(), throttled("429", 7), 1)) == ["absolved"]
    assert (rule.condition, rule.may_start(7.9), rule.may_start(8)) == ("throttled", False, True)
    assert (rule.end_wait(7.9), rule.end_wait(8), rule.end_wait(8)) == (False, True, False)
    assert rule.condition == "healthy"


@pytest.mark.parametrize(
    ("asked", "wait_s"), [(float("nan"), 1), (-3, 1), (0, 1), (60, 60), (1e9, 3600), (float("inf"), 3600)]
)
def test_a_destination_cannot_make_us_wait_for_ever_nor_not_at_all(asked: float, wait_s: float) -> None:
    rule = blame()
    attempt(rule, Letter(), throttled("429", asked), 0)
    assert rule.until == wait_s


def test_the_longest_wait_that_was_asked_for_counts() -> None:
    rule = blame()
    rule.judge(Letter(), throttled("429", 60), 0, 0)
    rule.judge(Letter(), throttled("429", 2), 0, 1)
    assert rule.until == 60


def test_gone_is_for_good_until_somebody_resumes_it() -> None:
    rule = blame()
    assert states(attempt(rule, Letter(), GONE, 1)) == ["absolved"]
    assert rule.condition == "off"
    assert not rule.may_start(1e9)
    assert states(rule.judge(Letter(), TAKEN, 0, 2)) == ["delivered"]
    assert rule.condition == "off"
    rule.resume(3)
    assert rule.may_start(3)


def test_busy_with_this_very_message_is_charged_and_says_nothing_about_the_destination() -> None:
    rule = blame()
    assert states(attempt(rule, Letter(), BUSY, 1)) == ["retry"]
    assert rule.condition == "healthy"


@pytest.mark.parametrize(
    ("letter", "state"),
    [
        (Letter(attempts=1), "retry"),
        (Letter(attempts=2), "dead"),
        (Letter(attempts=1, failing_for_s=59.9), "retry"),
        (Letter(attempts=1, failing_for_s=60), "dead"),
    ],
)
def test_a_message_is_dead_after_its_attempts_or_its_time(letter: Letter, state: str) -> None:
    rule = blame(max_attempts=3, give_up_after_s=60)
    attempt(rule, letter, FAILED, 1)
    assert states(attempt(rule, Letter(), TAKEN, 2)) == ["delivered", state]


def test_each_charged_failure_doubles_the_wait_before_the_next_attempt() -> None:
    waits = []
    for attempts in range(14):
        rule = blame()
        attempt(rule, Letter(attempts=attempts), FAILED, 1)
        (_, verdict) = attempt(rule, Letter(), TAKEN, 2)[1]
        assert verdict is not None
        waits.append(verdict.delay_ceiling_s)
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600]


def test_a_message_whose_receiver_names_a_time_waits_at_least_that_long() -> None:
    (_, verdict) = blame().judge(Letter(), busy("409", retry_after_s=90), 0, 0)[0]
    assert verdict is not None
    assert verdict.delay_ceiling_s == 90


# the moves that the essay in relay/decide/blame.py draws
@pytest.mark.parametrize(
    ("condition", "outcome", "becomes"),
    [
        ("healthy", TAKEN, "healthy"),
        ("healthy", FAILED, "doubted"),
        ("healthy", REFUSED, "doubted"),
        ("healthy", DOWN, "paused"),
        ("healthy", THROTTLED, "throttled"),
        ("healthy", GONE, "off"),
        ("healthy", BUSY, "healthy"),
        ("doubted", TAKEN, "healthy"),
        ("doubted", FAILED, "doubted"),
        ("doubted", DOWN, "paused"),
        ("paused", TAKEN, "healthy"),
        ("paused", FAILED, "paused"),
        ("paused", THROTTLED, "throttled"),
        ("paused", GONE, "off"),
        ("open", TAKEN, "healthy"),
        ("open", FAILED, "paused"),
        ("throttled", FAILED, "throttled"),
        ("throttled", DOWN, "throttled"),
        ("off", FAILED, "off"),
        ("off", THROTTLED, "off"),
    ],
)
def test_a_destination_goes_from_condition_to_condition_as_drawn(
    condition: str, outcome: Outcome, becomes: str
) -> None:
    rule = in_condition(condition)
    if rule.may_start(11.0):
        rule.start()
    rule.judge(Letter(), outcome, 11.0, 11.0)
    assert rule.condition == becomes
