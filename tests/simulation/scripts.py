"""Scripts of lives: random ones, and those in which a particular fault once showed."""

from __future__ import annotations

from random import Random

from simulation.life import TROUBLES, Fate, Script
from simulation.relay import Plan

from relay.decide.outcome import failed, refused, throttled, unanswered
from relay.decide.rate import Rate

EVENTS = ("kill", "start", "stop", "cut", "cut", "pause", "resume", "retry_dead", "discard_dead")


def any_script(seed: int) -> Script:
    """Generate a random script."""
    chance = Random(seed * 7919 + 1)
    names = ["a", "b", "c"][: chance.choice([1, 1, 2, 2, 3])]
    until = chance.choice([15.0, 30.0])
    plans = {name: _plan(name, chance) for name in names}
    plans[names[0]].rate = Random(seed).choice([None, None, None, Rate(50.0, 3), Rate(200.0, 200)])
    emits = _emits(chance, until)
    fates = {name: _fate(chance, until, len(emits)) for name in names}
    events = [_event(chance, names, until) for _ in range(chance.choice([0, 0, 2, 5, 10]))]
    expires_s = Random(seed + 1).choice([None, None, 0.0005, 1.0, 5.0])
    window = chance.choice([8, 16, 40])
    short_poll_s = Random(seed + 2).choice([0.05, 0.1, 0.1, 0.1])  # half the turns of a life find nothing to do
    return Script(
        plans,
        fates,
        emits,
        events,
        relays=chance.choice([1, 1, 2]),
        until=until,
        miss=chance.choice([0.0, 0.0, 0.2]),
        expires_s=expires_s,
        knobs={"window": window, "page_size": chance.choice([4, 8, window // 2]), "short_poll_s": short_poll_s},
    )


def _plan(name: str, chance: Random) -> Plan:
    return Plan(
        name,
        concurrency=chance.choice([1, 2, 4, 8]),
        batch=chance.choice([1, 1, 4, 8]),
        on_dead=chance.choice(["block", "block", "skip"]),
        max_attempts=chance.choice([1, 3, 6]),
    )


def _emits(chance: Random, until: float) -> list[tuple[float, float, str | None, float]]:
    keys = chance.choice([[None], ["k"], ["k", "k", "l", None], [f"k{n}" for n in range(9)], ["hot"] * 9 + [None]])
    emits = []
    for _ in range(chance.choice([10, 40, 80])):
        at = round(chance.choice([0.0, 0.0, chance.random() * until * 0.8]), 3)
        late_s = chance.choice([0.0, 0.0, 0.0, chance.random()])
        delay_s = chance.choice([0.0] * 9 + [chance.random() * 5])
        emits.append((at, at + late_s, chance.choice(keys), delay_s))
    return emits


def _fate(chance: Random, until: float, count: int) -> Fate:
    fate = Fate(latency_s=chance.choice([0.005, 0.05, 0.3]))
    match chance.choice(["well", "down", "flaky", "poison", "both"]):
        case "down":
            fate.down = [_span(chance, until) for _ in range(chance.choice([1, 1, 3]))]
        case "flaky":
            fate.share = chance.choice([0.05, 0.3, 0.6])
        case "poison":
            fate.poison = _poison(chance, count)
        case "both":
            fate.down, fate.poison = [_span(chance, until)], _poison(chance, count)
    return fate


def _span(chance: Random, until: float) -> tuple[float, float, object]:  # type: ignore[type-arg]
    start = chance.random() * until * 0.7
    return start, start + chance.choice([0.3, 2.0, 6.0]), chance.choice(TROUBLES)  # type: ignore[return-value]


def _poison(chance: Random, count: int) -> dict[int, object]:  # type: ignore[type-arg]
    how = chance.choice([failed("500"), unanswered("timeout"), refused("422")])
    return {n: how for n in range(count) if chance.random() < chance.choice([0.05, 0.2, 0.5])}  # type: ignore[return-value]


def _event(chance: Random, names: list[str], until: float) -> tuple[float, str, object]:
    what = chance.choice(EVENTS)
    argument = chance.choice(names) if what in ("pause", "resume", "discard_dead") else chance.randrange(4)
    return chance.random() * until * 0.8, what, argument


# ---------------------------------------------------------------- faults that once were


def throttled_batches(seed: int) -> Script:
    """Send batches of keyed messages, one of which is answered 503 with Retry-After, beside a sibling."""
    chance = Random(seed)
    emits = [(0.0, 0.0, f"k{n % 30}", 0.0) for n in range(60)]
    emits += [(at, at, f"k{n % 30}", 0.0) for n in range(60) for at in [0.5 + 3 * chance.random()]]
    fates = {"a": Fate(down=[(0.0, 0.3, throttled("503", 1.0)), (2.0, 2.2, throttled("503", 1.0))]), "b": Fate()}
    return Script({"a": Plan("a", batch=8), "b": Plan("b")}, fates, emits, knobs={"window": 80, "page_size": 20})


def hot_key(seed: int) -> Script:
    """Put one key under a steady stream, with an outage of four seconds."""
    emits = [(n / 20, n / 20, "hot", 0.0) for n in range(1, 400)]
    fates = {"a": Fate(down=[(3.0, 7.0, failed("500"))], latency_s=0.01)}
    return Script({"a": Plan("a", max_attempts=20)}, fates, emits, until=22.0, knobs={"window": 16, "page_size": 2})


def quiet_poison(seed: int) -> Script:
    """Send ten bad messages in a quiet moment, then good ones."""
    how = [failed("500"), refused("422"), unanswered("timeout")][seed % 3]
    emits = [(0.0, 0.0, None, 0.0)] * 10 + [(3 + n / 5, 3 + n / 5, None, 0.0) for n in range(100)]
    names = ["a", "b"][: 1 + seed % 2]
    fates = {name: Fate() for name in names}
    fates["a"].poison = dict.fromkeys(range(10), how)
    return Script({n: Plan(n, max_attempts=20) for n in names}, fates, emits, until=30.0, knobs={"window": 16})


def hidden(seed: int) -> Script:
    """Send good messages between many bad ones, all at once: the oldest and the newest fail."""
    how = [failed("500"), unanswered("timeout")][seed % 2]
    names = ["a", "b"][: 1 + seed % 2]
    fates = {name: Fate(latency_s=0.05) for name in names}
    fates["a"].poison = dict.fromkeys([*range(40), *range(60, 100)], how)
    knobs = {"window": 240, "page_size": 50}
    return Script({n: Plan(n) for n in names}, fates, [(0.0, 0.0, None, 0.0)] * 100, until=60.0, knobs=knobs)


def crowd_in_front(seed: int) -> Script:
    """Send more bad messages than a destination that is down keeps, then good ones between more, beside a sibling."""
    how = [failed("500"), unanswered("timeout")][seed % 2]
    fates = {name: Fate(latency_s=0.05) for name in "ab"}
    fates["a"].poison = dict.fromkeys([*range(60), *range(80, 140)], how)
    emits = [(0.0, 0.0, None, 0.0)] * 60 + [(3.0, 3.0, None, 0.0)] * 80
    return Script({n: Plan(n) for n in "ab"}, fates, emits, until=60.0, knobs={"window": 300, "page_size": 20})


def keys_behind_a_crowd(seed: int) -> Script:
    """Send more bad messages than a destination that is down keeps, then good ones with keys, beside a sibling."""
    how = [failed("500"), unanswered("timeout")][seed % 2]
    fates = {name: Fate(latency_s=0.02) for name in "ab"}
    fates["a"].poison = dict.fromkeys(range(120), how)
    emits = [(0.0, 0.0, None, 0.0)] * 120 + [(3 + n / 2, 3 + n / 2, f"k{n % 10}", 0.0) for n in range(40)]
    knobs = {"window": 40, "page_size": 8}
    return Script({n: Plan(n) for n in "ab"}, fates, emits, until=30.0, knobs=knobs)


def behind_the_tried(seed: int) -> Script:
    """Try a crowd of bad messages and the good ones behind it in an outage, after which nothing new comes."""
    names = ["a", "ab", "ab"][seed % 3]
    fates = {name: Fate(latency_s=0.005) for name in names}
    fates["a"].down = [(0.0, 20.0, unanswered("timeout"))]
    fates["a"].poison = dict.fromkeys(range(60), [failed("500"), unanswered("timeout")][seed % 2])
    emits = [(0.0, 0.0, f"k{n}" if seed % 3 == 2 else None, 0.0) for n in range(80)]
    plans = {n: Plan(n, backoff_max_s=0.2) for n in names}
    return Script(plans, fates, emits, until=40.0, knobs={"window": 8 * len(names), "page_size": 4})


def poison_chain(seed: int) -> Script:
    """Send one bad message with twenty successors of its key, then good ones."""
    how = [failed("500"), unanswered("timeout")][seed % 2]
    emits = [(0.0, 0.0, "k", 0.0)] * 21 + [(3 + n / 5, 3 + n / 5, None, 0.0) for n in range(100)]
    names = ["a", "b"][: 1 + seed % 2]
    fates = {name: Fate() for name in names}
    fates["a"].poison = {0: how}
    return Script(
        {n: Plan(n, max_attempts=20) for n in names}, fates, emits, until=30.0, knobs={"window": 8, "page_size": 4}
    )


def missed_releases(seed: int) -> Script:
    """Run two relays that lose sessions, and miss deliveries that are being blocked when they release."""
    chance = Random(seed)
    emits = [(at, at, f"k{n % 3}", 0.0) for n in range(80) for at in [15 * chance.random()]]
    events = [(2.0 * n, "cut", n) for n in range(1, 8)]
    fates = {"a": Fate(share=0.2)}
    return Script({"a": Plan("a")}, fates, emits, events, relays=2, miss=0.5, until=20.0)


def few_failing(seed: int) -> Script:
    """Send two to four failing messages, and nothing else."""
    count = 2 + seed % 3
    fates = {"a": Fate(poison=dict.fromkeys(range(count), unanswered("timeout")), latency_s=0.01)}
    plan = Plan("a", backoff_s=1.0, backoff_max_s=30.0, max_attempts=50)
    return Script({"a": plan}, fates, [(0.0, 0.0, None, 0.0)] * count, until=20.0)


def takeover(seed: int) -> Script:
    """Kill one of two relays, with hundreds of messages blocked behind dead letters."""
    emits = [(0.0, 0.0, f"k{n % 8}", 0.0) for n in range(250)] + [(n / 5, n / 5, None, 0.0) for n in range(30, 120)]
    fates = {"a": Fate(poison=dict.fromkeys(range(8), refused("422")), latency_s=0.01)}
    events = [(8.0, "kill", seed)]
    return Script({"a": Plan("a")}, fates, emits, events, relays=2, until=30.0, knobs={"window": 40, "page_size": 20})


def limited(seed: int) -> Script:
    """Run two relays on one budget, one of them cut off now and then, beside an unlimited sibling."""
    emits = [(n / 100, n / 100, f"k{n % 50}", 0.0) for n in range(300)]
    events = [(1.0, "cut", 0), (2.0, "cut", 1)]
    plans = {"a": Plan("a", batch=8 * (seed % 2) or 1, rate=Rate(40.0, 5)), "b": Plan("b")}
    return Script(
        plans,
        {"a": Fate(latency_s=0.01), "b": Fate(latency_s=0.01)},
        emits,
        events,
        relays=2,
        until=15.0,
        knobs={"window": 32, "page_size": 8},
    )


def expiring(seed: int) -> Script:
    """Send keys in which every third message expires, through an outage that lasts longer than the expiry."""
    emits = [(n / 20, n / 20, f"k{n % 4}", 0.0) for n in range(120)]
    down = [(1.0, 5.0, TROUBLES[seed % 3])]
    fates = {"a": Fate(down=down, latency_s=0.01), "b": Fate(latency_s=0.01)}
    plans = {"a": Plan("a", max_attempts=20, batch=[1, 8][seed % 2]), "b": Plan("b")}
    knobs = {"window": 32, "page_size": 8}
    return Script(plans, fates, emits, [(3.0, "cut", 0)], until=15.0, expires_s=1.0, knobs=knobs)


def noted_too_long(seed: int) -> Script:
    """Kill relays, so that attempts wait until they are noted, while messages expire within that time."""
    emits = [(n / 50, n / 50, [None, f"k{n % 4}"][n % 2], 0.0) for n in range(150)]
    events = [(1.0, "kill", 0), (2.0, "kill", 0), (2.0, "start", 0)]
    knobs = {"window": 32, "page_size": 8, "short_poll_s": 0.4}
    fates = {"a": Fate(latency_s=0.01)}
    return Script({"a": Plan("a")}, fates, emits, events, relays=3, until=12.0, expires_s=0.8, knobs=knobs)


def narrow_window(seed: int) -> Script:
    """Run with a window hardly wider than what failing destinations keep, and a healthy sibling."""
    emits = [(n / 20, n / 20, [None, f"k{n % 4}"][n % 2], 0.0) for n in range(100)]
    names = ["a", "b", "c"]
    fates = {name: Fate(latency_s=0.01) for name in names}
    fates["b"].down = [(0.0, 18.0, unanswered("timeout"))]
    knobs = {"window": [1, 3, 8][seed % 3], "page_size": [1, 1, 4][seed % 3]}
    return Script({n: Plan(n) for n in names}, fates, emits, [(0.1, "pause", "a")], until=22.0, knobs=knobs)


def crowd_of_retries(seed: int) -> Script:
    """Let more retries fall due than the destination can be sent, beside good messages that it could take."""
    emits = [(0.0, 0.0, None, 0.0)] * 80 + [(3 + n / 4, 3 + n / 4, [None, f"k{n}"][n % 2], 0.0) for n in range(80)]
    names = ["a", "b"][: 1 + seed % 2]
    fates = {name: Fate(latency_s=0.1) for name in names}
    fates["a"].poison = dict.fromkeys(range(0, 80, 2), [failed("500"), unanswered("timeout")][seed % 2])
    plans = {n: Plan(n, concurrency=1, max_attempts=1000) for n in names}
    return Script(plans, fates, emits, until=30.0, knobs={"window": 16, "page_size": 8})


DIRECTED = {
    "crowd of retries": crowd_of_retries,
    "narrow window": narrow_window,
    "expiring": expiring,
    "noted too long": noted_too_long,
    "limited": limited,
    "takeover": takeover,
    "throttled batches": throttled_batches,
    "hot key": hot_key,
    "quiet poison": quiet_poison,
    "hidden": hidden,
    "crowd in front": crowd_in_front,
    "keys behind a crowd": keys_behind_a_crowd,
    "behind the tried": behind_the_tried,
    "poison chain": poison_chain,
    "missed releases": missed_releases,
    "few failing": few_failing,
}
