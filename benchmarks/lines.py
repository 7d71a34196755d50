"""List the lines: what measures each, and how it is judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import backlog, elsewhere, flaky, fleet, isolation, latency, producing, sqlite, steady
from benchmarks.results import Result
from benchmarks.running import Bench


@dataclass(frozen=True)
class Line:
    """One line: what measures it, and what compares the medians with their targets."""

    number: int
    title: str
    run: Callable[[Bench], Result]
    judge: Callable[[Result], None]


LINES = {
    line.number: line
    for line in (
        Line(1, "drain, beside the rivals", backlog.against_rivals, backlog.judge_rivals),
        Line(2, "drain with ordering keys", backlog.with_keys, backlog.judge_keys),
        Line(3, "HTTP", elsewhere.run_of(3, "benchmarks.http", "HTTP deliveries"), elsewhere.judge_http),
        Line(4, "RabbitMQ", elsewhere.run_of(4, "benchmarks.rabbitmq", "RabbitMQ"), elsewhere.judge_rabbitmq),
        Line(5, "commit to listener", latency.from_commit_to_listener, latency.judge_latency),
        Line(6, "what emit costs", producing.cost_of_emit, producing.judge_emit),
        Line(7, "backlogs of any size", backlog.of_any_size, backlog.judge_sizes),
        Line(8, "an hour's stream", steady.for_an_hour, steady.judge_soak),
        Line(9, "a transaction held open", steady.past_an_open_transaction, steady.judge_open_transaction),
        Line(10, "several relays", fleet.of_many_relays, fleet.judge_fleet),
        Line(11, "SQLite", sqlite.on_sqlite, sqlite.judge_sqlite),
        Line(12, "beside one that hangs", isolation.beside_one_that_hangs, isolation.judge_isolation),
        Line(13, "flaky destinations", flaky.at_flaky_destinations, flaky.judge_flaky),
        Line(14, "what metrics cost", backlog.with_and_without_metrics, backlog.judge_metrics),
    )
}
