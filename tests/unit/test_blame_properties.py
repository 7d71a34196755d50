"""Whose fault was it? Whatever happens, in whatever order, an outage is charged to nobody."""

from dataclasses import dataclass, field

from hypothesis import event, given, settings
from hypothesis import strategies as st
from support.letters import BUSY, DOWN, FAILED, OUTCOMES, REFUSED, THROTTLED, Letter, blame

from relay.decide.blame import PROBE_EVERY_S, Blame
from relay.decide.outcome import TAKEN, Outcome
from relay.decide.verdict import Verdict


@dataclass
class Line:
    """A lane without its clock and its tasks: letters wait, are attempted side by side, and are ruled on."""

    rule: Blame[Letter]
    now: float = 0.0
    waiting: list[Letter] = field(default_factory=list)
    under_way: list[tuple[Letter, float]] = field(default_factory=list)
    done: dict[int, str] = field(default_factory=dict)
    charged: dict[int, int] = field(default_factory=dict)
    failed_at: dict[int, float] = field(default_factory=dict)
    taken_starts: list[float] = field(default_factory=list)
    count: int = 0

    def arrive(self) -> None:
        self.count += 1
        self.waiting.append(Letter(self.count))

    def start(self, at_most: int = 4) -> None:
        if not self.waiting:
            self.waiting += self.rule.take_back(self.now)
        self.rule.end_wait(self.now)
        if self.waiting and len(self.under_way) < at_most and self.rule.may_start(self.now):
            self.rule.start()
            self.under_way.append((self.waiting.pop(0), self.now))

    def end(self, which: int, outcome: Outcome) -> None:
        if not self.under_way:
            return
        letter, started_at = self.under_way.pop(which % len(self.under_way))
        if outcome is TAKEN:
            self.taken_starts.append(started_at)
        if outcome.kind in ("failed", "refused"):
            self.failed_at[letter.number] = self.now
        self.carry_out(self.rule.judge(letter, outcome, started_at, self.now))
        if outcome is TAKEN:
            assert all(s.failed_at > started_at for s in self.rule.suspects), "convicted as soon as another is taken"
        if not self.waiting and not self.under_way:
            self.carry_out(self.rule.exhausted(self.now), exhausted=True)

    def carry_out(self, ruling: list[tuple[Letter, Verdict | None]], *, exhausted: bool = False) -> None:
        for letter, verdict in ruling:
            if verdict is None:
                self.waiting.insert(0, letter)
            elif verdict.state == "retry":
                assert verdict.charged
                self.check_evidence(letter, verdict)
                letter.attempts += 1
                self.waiting.append(letter)
            else:
                if verdict.state == "dead":
                    assert exhausted or self.has_evidence(letter)
                self.done[letter.number] = verdict.state

    def has_evidence(self, letter: Letter) -> bool:
        failed_at = self.failed_at[letter.number]
        return any(started_at >= failed_at for started_at in self.taken_starts)

    def check_evidence(self, letter: Letter, verdict: Verdict) -> None:
        if verdict.reason != BUSY.reason:
            assert self.has_evidence(letter), "charged while nothing else was taken"

    def check_conservation(self) -> None:
        places = [
            *(letter.number for letter in self.waiting),
            *(letter.number for letter, _ in self.under_way),
            *(s.delivery.number for s in self.rule.suspects),
            *self.done,
        ]
        assert sorted(places) == list(range(1, self.count + 1))


moves = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), st.just(0), st.just(TAKEN)),
        st.tuples(st.just("start"), st.just(0), st.just(TAKEN)),
        st.tuples(st.just("wait"), st.integers(0, 9), st.just(TAKEN)),
        st.tuples(st.just("end"), st.integers(0, 3), st.sampled_from([*OUTCOMES, TAKEN, FAILED, FAILED, REFUSED])),
    ),
    max_size=60,
)


def play(line: Line, script: list[tuple[str, int, Outcome]]) -> None:
    for what, number, outcome in script:
        line.now += 0.001
        if what == "arrive":
            line.arrive()
        elif what == "start":
            line.start()
        elif what == "wait":
            line.now += number
        else:
            line.end(number, outcome)
        line.check_conservation()


@given(moves)
def test_whatever_happens_every_letter_is_in_one_place_and_nobody_is_charged_without_evidence(
    script: list[tuple[str, int, Outcome]],
) -> None:
    line = Line(blame())
    play(line, script)
    event(f"ends {line.rule.condition}")


@given(moves, st.sampled_from([FAILED, DOWN, THROTTLED]))
def test_an_outage_of_any_length_costs_nobody_an_attempt(
    script: list[tuple[str, int, Outcome]], outcome: Outcome
) -> None:
    line = Line(blame())
    play(line, [(what, number, outcome) for what, number, _ in script])
    assert line.done == {}
    assert all(letter.attempts == 0 for letter in line.waiting)


@given(moves)
def test_when_a_destination_works_again_everything_is_delivered(script: list[tuple[str, int, Outcome]]) -> None:
    line = Line(blame())
    play(line, [(w, n, o) for w, n, o in script if o.kind != "gone"])
    for _ in range(20 * (line.count + 1)):
        line.now += PROBE_EVERY_S
        line.start()
        while line.under_way:
            line.end(0, TAKEN)
    assert sorted(line.done) == list(range(1, line.count + 1))
    assert line.rule.condition in ("healthy", "throttled")


@settings(max_examples=50)
@given(st.integers(1, 4), st.integers(0, 10), st.integers(0, 30))
def test_poison_among_good_messages_is_charged_and_the_good_ones_are_delivered(
    poison: int, before: int, after: int
) -> None:
    line = Line(blame(max_attempts=3))
    poisoned = set(range(before + 1, before + poison + 1))
    for _ in range(before + poison + after + 4):
        line.arrive()
    for _ in range(400):
        line.now += 0.01
        line.start()
        while line.under_way:
            letter, _ = line.under_way[0]
            line.end(0, FAILED if letter.number in poisoned else TAKEN)
            line.now += 0.01
    assert {n for n, state in line.done.items() if state == "delivered"} == set(range(1, line.count + 1)) - poisoned
