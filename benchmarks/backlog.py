"""Measure lines 1, 2, 7 and 14: the drain of a backlog, beside rivals, with keys, of any size, and without metrics.

Each contestant's backlog is written once; every round begins with a copy of that database.
"""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from benchmarks.postgres import settle_down
from benchmarks.results import Result
from benchmarks.rivals import RIVALS, Missing, Rival
from benchmarks.running import Bench, ours, run_rival, say

Contestants = dict[str, Callable[[], float]]

FLOOR, OURS, BARE, PLAIN = "the floor: the bare loop", "neverlost", "neverlost, retention 0", "no keys"
COUNTED, UNCOUNTED = "with metrics", "without"
KEYS, HOT, SERIAL = "5,000 keys", "one hot key", "one at a time (no keys, concurrency 1)"


def against_rivals(bench: Bench) -> Result:
    """Rivals delete delivered messages. We keep them for a week; one of our contestants deletes them, too."""
    messages = bench.many(200_000)
    result = bench.result(1, "Drain of a backlog, no-op listener, one relay", messages=messages, payload_bytes=200)
    bench.outbox("ours", messages)
    contestants: Contestants = {
        FLOOR: lambda: _ours(bench, "floor", "ours", messages),
        OURS: lambda: _ours(bench, "drain", "ours", messages),
        BARE: lambda: _ours(bench, "drain", "ours", messages, "--retention-days", 0),
    }
    for rival in RIVALS:
        count = int(messages * rival.share)
        try:
            name = _prepare(bench, rival, count)
        except Missing as error:
            result.missing.append(f"{rival.name}: {error}")
            continue
        contestants[rival.name] = lambda rival=rival, name=name, count=count: _rival(bench, rival, name, count)  # type: ignore[misc]
        if count != messages:
            result.notes.append(f"{rival.name} had {count:,} messages.")
    _settle_templates(bench)
    _in_turn(bench, result, contestants)
    _profile(bench, result, messages)
    return result


def _profile(bench: Bench, result: Result, messages: int) -> None:
    """Return where the time of a message goes, in µs: the waits of the floor, and the work of our process."""
    floor = ours("floor", bench.scratch.create("round", "ours"), "--messages", messages)
    relay = ours("drain", bench.scratch.create("round", "ours"), "--messages", messages)
    result.add("floor: reading a message", floor["read_us"], "µs")
    result.add("floor: settling it", floor["settle_us"], "µs")
    result.add("floor: processor time of the process, of both", floor["cpu_us"], "µs")
    result.add("neverlost: processor time of the relay for a message", relay["cpu_us"], "µs")


def judge_rivals(result: Result) -> None:
    python = [each.name for each in RIVALS if not each.runs_on_node and result.has(each.name)]
    for node in (each.name for each in RIVALS if each.runs_on_node):
        result.compare(f"neverlost : {node}", OURS, node, 2.0)
        result.compare(f"{BARE} : {node}", BARE, node)
    if python:
        best = max(python, key=result.median)
        result.compare(f"neverlost : {best} (the best Python rival)", OURS, best, 3.0)
        result.compare(f"{BARE} : {best}", BARE, best)
        result.compare(f"the floor : {best}", FLOOR, best)
    result.compare("neverlost : the floor", OURS, FLOOR, 0.5)


def with_keys(bench: Bench) -> Result:
    messages = bench.many(200_000)
    result = bench.result(
        2, "The same with ordering keys", messages=messages, hot_key_messages=messages // 10, payload_bytes=200
    )
    bench.outbox("plain", messages)
    bench.outbox("keys", messages, "'k' || mod(n, 5000)")
    bench.outbox("hot", messages // 10, "'k'")
    bench.outbox("serial", messages // 10)
    contestants: Contestants = {
        PLAIN: lambda: _ours(bench, "drain", "plain", messages),
        KEYS: lambda: _ours(bench, "drain", "keys", messages),
        HOT: lambda: _ours(bench, "drain", "hot", messages // 10),
        SERIAL: lambda: _ours(bench, "drain", "serial", messages // 10, "--concurrency", 1),
    }
    _settle_templates(bench)
    _in_turn(bench, result, contestants)
    return result


def judge_keys(result: Result) -> None:
    result.compare(f"{KEYS} : {PLAIN}", KEYS, PLAIN, 0.7)
    result.compare(f"{HOT} : {SERIAL}", HOT, SERIAL, 1.0)


def of_any_size(bench: Bench) -> Result:
    largest = bench.many(1_000_000)
    sizes = [size for size in (10_000, 100_000, 1_000_000, 10_000_000) if size <= largest]
    result = bench.result(7, "Backlogs of 10,000 and more", messages=sizes, payload_bytes=200)
    for number in range(bench.rounds):
        for size in sizes:
            url = bench.outbox("backlog", size)
            settle_down(url)
            found = ours("drain", url, "--messages", size, "--poll")
            say(f"  round {number + 1}, {size:,}: {found['rate']:,.0f}/s, {found['rss_mib']:.0f} MiB")
            result.add(f"drain of {size:,}", found["rate"])
            result.add(f"RSS after {size:,}", found["rss_mib"], "MiB")
            result.add(f"idle poll after {size:,}", found["poll_ms"], "ms")
            result.add(f"poll of a session begun after {size:,}, before any vacuum", ours("poll", url)["poll_ms"], "ms")
    return result


def judge_sizes(result: Result) -> None:
    sizes = result.ran["messages"]
    # The smallest drain lasts a fifth of a second, most of which is the start, so the second size is the fair
    # comparison.
    for small, target in zip(sizes[:-1], (0.9, None), strict=False):
        over, under = f"drain of {sizes[-1]:,}", f"drain of {small:,}"
        result.compare(f"{over} : of {small:,}", over, under, target)
    result.want(f"idle poll after {sizes[-1]:,}", 1.0, at_most=True)
    result.want(f"RSS after {sizes[-1]:,}", 150.0, at_most=True)


def with_and_without_metrics(bench: Bench) -> Result:
    messages = bench.many(200_000)
    result = bench.result(14, "What metrics cost a drain", messages=messages, payload_bytes=200)
    bench.outbox("ours", messages)
    _settle_templates(bench)
    for number in range(bench.rounds):
        for name, arguments in ((COUNTED, ()), (UNCOUNTED, ("--uncounted",))):
            found = ours("drain", bench.scratch.create("round", "ours"), "--messages", messages, *arguments)
            say(f"  round {number + 1}, {name}: {found['rate']:,.0f}/s, {found['cpu_us']:.1f} µs a message")
            result.add(name, found["rate"])
            result.add(f"{name}: processor time of the relay for a message", found["cpu_us"], "µs")
    return result


def judge_metrics(result: Result) -> None:
    result.compare(f"{COUNTED} : {UNCOUNTED}", COUNTED, UNCOUNTED, 0.97)


# --------------------------------------------------------------------- contestants


def _prepare(bench: Bench, rival: Rival, messages: int) -> str:
    say(f"  {rival.name}: installing and filling")
    bench.rivals.install(rival)
    name = rival.worker.partition("_worker")[0]
    url = bench.scratch.create(name)
    run_rival(bench, rival, "prepare", url)
    with psycopg.connect(url) as connection:
        connection.execute(rival.insert.format(count=messages))  # type: ignore[call-overload]
    return name


def _settle_templates(bench: Bench) -> None:
    for url in bench.scratch.urls():
        settle_down(url)


def _in_turn(bench: Bench, result: Result, contestants: Contestants) -> None:
    for number in range(bench.rounds):
        for name, run in contestants.items():
            result.add(name, rate := run())
            say(f"  round {number + 1}, {name}: {rate:,.0f}/s")


def _ours(bench: Bench, action: str, like: str, messages: int, *arguments: object) -> float:
    return ours(action, bench.scratch.create("round", like), "--messages", messages, *arguments)["rate"]


def _rival(bench: Bench, rival: Rival, like: str, messages: int) -> float:
    return run_rival(bench, rival, "drain", bench.scratch.create("round", like), messages)["rate"]
