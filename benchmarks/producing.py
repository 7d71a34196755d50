"""Measure line 6: what `emit` costs a worker, compared with the same transaction with a second INSERT written by hand.

The transaction inserts a result and a message. The message written by hand goes through the same SQLAlchemy: once into
our table, where the relay delivers it too, so that only `emit` differs; and once into the plainest possible outbox
table (an id, a type, a payload, a time) without a reader, so indexes, trigger and relay are only on our side.

`emit_many` is compared with an executemany by hand, and with its floor: rows that the server makes itself, where only
the cost of our table remains.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from typing import Any

import sqlalchemy as sa

from benchmarks.results import Result
from benchmarks.running import Bench, relay_at_work, say, wait_until
from outbox import emit, emit_many
from outbox.checks.ids import new_id

DATA = {"pad": "x" * 190}
TYPE = "bench.produced"
TABLES = (
    "CREATE TABLE result (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL)",
    "CREATE TABLE plain_outbox (id uuid PRIMARY KEY, type text NOT NULL, payload jsonb NOT NULL, "
    "created_at timestamptz NOT NULL DEFAULT now())",
)
RESULT = sa.text("INSERT INTO result (body) VALUES (:body)")
SAME = sa.text("INSERT INTO outbox_message (id, type, source, data) VALUES (:id, :type, 'bench', CAST(:data AS json))")
MADE = sa.text(
    "INSERT INTO outbox_message (id, type, source, data) "
    "SELECT gen_random_uuid(), :type, 'bench', CAST(:data AS json) FROM generate_series(1, :count)"
)
PLAIN = sa.text("INSERT INTO plain_outbox (id, type, payload) VALUES (:id, :type, CAST(:data AS jsonb))")
MANY = 1_000  # messages of one emit_many

WAITING = sa.text("SELECT EXISTS (SELECT FROM outbox_message)")

Way = Callable[[sa.Connection], None]


def _emit(connection: sa.Connection) -> None:
    emit(connection, TYPE, DATA)


def _by_hand(statement: sa.TextClause) -> Way:
    def insert(connection: sa.Connection) -> None:
        connection.execute(statement, {"id": new_id(), "type": TYPE, "data": json.dumps(DATA)})

    return insert


def _emit_many(connection: sa.Connection) -> None:
    emit_many(connection, [(TYPE, DATA)] * MANY)


def _many_by_hand(connection: sa.Connection) -> None:
    connection.execute(SAME, [{"id": new_id(), "type": TYPE, "data": json.dumps(DATA)} for _ in range(MANY)])


def _made_by_server(connection: sa.Connection) -> None:
    connection.execute(MADE, {"type": TYPE, "data": json.dumps(DATA), "count": MANY})


WAYS = {"emit": _emit, "by hand, same table": _by_hand(SAME), "by hand, plain table": _by_hand(PLAIN)}
EMIT_MANY = "emit_many of 1,000"
MANY_BY_HAND = "by hand, same table, executemany of 1,000"
MADE_BY_SERVER = "the floor: 1,000 rows that the server makes, same table"
WAYS_OF_MANY = {EMIT_MANY: _emit_many, MANY_BY_HAND: _many_by_hand, MADE_BY_SERVER: _made_by_server}
WRITERS = (1, 16)
WANTED = {1: 0.9, 16: 0.85}  # the share of the rate of inserts without this package


def cost_of_emit(bench: Bench) -> Result:
    seconds = bench.for_s(4)
    result = bench.result(6, "What emit costs a worker, relay running", seconds_each=seconds, payload_bytes=200)
    url = bench.outbox("producing")
    engine = _engine(url)
    with engine.begin() as connection:
        for statement in TABLES:
            connection.exec_driver_sql(statement)
    with relay_at_work(url):
        for number in range(bench.rounds):
            for writers in WRITERS:
                for name, way in _rotated(WAYS, number):
                    _wait_for_relay(engine)
                    rate = _together(url, way, writers, seconds)
                    result.add(f"{name}, {_writers(writers)}", rate, "transactions/s")
                    say(f"  round {number + 1}, {name}, {_writers(writers)}: {rate:,.0f}/s")
            for name, way in _rotated(WAYS_OF_MANY, number):
                _wait_for_relay(engine)
                result.add(name, rate := MANY * _rate(engine, way, seconds))
                say(f"  round {number + 1}, {name}: {rate:,.0f}/s")
    engine.dispose()
    return result


def judge_emit(result: Result) -> None:
    for count, wanted in WANTED.items():
        writers = _writers(count)
        for way in ("by hand, same table", "by hand, plain table"):
            result.compare(f"emit : {way}, {writers}", f"emit, {writers}", f"{way}, {writers}", wanted)
    result.want(EMIT_MANY, 60_000)
    result.compare("emit_many : by hand, same table, executemany", EMIT_MANY, MANY_BY_HAND)
    result.compare("emit_many : the floor", EMIT_MANY, MADE_BY_SERVER)


def _rotated(ways: dict[str, Way], by: int) -> list[tuple[str, Way]]:
    """Return the ways in an order that begins with another one in each round."""
    items = list(ways.items())
    return items[by % len(items) :] + items[: by % len(items)]


def _wait_for_relay(engine: sa.Engine) -> None:
    """Wait until the relay has delivered all earlier messages, so each side pays only for its own."""
    with engine.connect() as connection:
        wait_until(lambda: not connection.execute(WAITING).scalar(), every_s=0.1)


def _writers(count: int) -> str:
    return "1 writer" if count == 1 else f"{count} writers"


def _together(url: str, way: Way, writers: int, seconds: float) -> float:
    """Return the transactions per second of ``processes`` processes."""
    context = multiprocessing.get_context("fork")
    together, counts = context.Barrier(writers), context.Queue()
    processes = [
        context.Process(target=_write, args=(url, way, seconds, together, counts), daemon=True) for _ in range(writers)
    ]
    for process in processes:
        process.start()
    rate = sum(counts.get(timeout=seconds + 60) for _ in processes)
    for process in processes:
        process.join()
    return rate


def _write(url: str, way: Way, seconds: float, together: Barrier, counts: Queue[Any]) -> None:
    counts.put(_rate(_engine(url), way, seconds, lambda: together.wait(60)))


def _rate(engine: sa.Engine, way: Way, seconds: float, when_ready: Callable[[], object] = lambda: None) -> float:
    """Return the transactions per second, after a first one that does not count."""
    with engine.connect() as connection:
        _transaction(connection, way)
        when_ready()
        began_at = time.perf_counter()
        done = 0
        while time.perf_counter() - began_at < seconds:
            _transaction(connection, way)
            done += 1
        return done / (time.perf_counter() - began_at)


def _transaction(connection: sa.Connection, way: Way) -> None:
    with connection.begin():
        connection.execute(RESULT, {"body": "b" * 100})
        way(connection)


def _engine(url: str) -> sa.Engine:
    return sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
