"""A relay and its broker, with a fault of either in mid-stream: nothing is lost or dead, and keys keep their order."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import text
from support.databases import Database
from support.fleet import end_owning_sessions
from support.kafka import Noida
from support.nats import NatsServer
from support.processes import Process, Spawner
from support.servers import Server, running
from support.waiting import eventually
from support.worlds import kafka_world, nats_world, redis_world

from outbox import emit
from outbox.testing.destination_contract import World

TYPE = "extraction.completed"
KEYS = ("a", "b", "c")
QUICK = {"timeout_s": 2, "backoff_s": 0.1, "backoff_max_s": 0.5, "events": [TYPE]}

Fault = Callable[[Server], object]


class Behind(NamedTuple):
    """A broker that a relay delivers to."""

    server: Server
    world: World
    knows_again: bool = False  # it drops a message that it already has

    def ids(self) -> list[str]:
        """Return the ids of the broker's messages, in the order of arrival, with repetitions."""
        return [each.id for each in self.world.taken()]


@pytest.fixture(params=["redis", "recent_redis", "nats", "kafka"])
def behind(request: pytest.FixtureRequest) -> Behind:
    """One broker of each kind, and Redis without and with idempotent publishing."""
    if request.param == "kafka":
        server = request.getfixturevalue("noida")
        return Behind(server, kafka_world(server, **QUICK))
    server = request.getfixturevalue(request.param)
    if request.param == "nats":
        return Behind(server, nats_world(server, **QUICK), knows_again=True)
    return Behind(server, redis_world(server, **QUICK), knows_again=request.param == "recent_redis")


@pytest.fixture
def noida() -> Any:
    """A broker of Kafka's protocol that keeps its data over an orderly stop."""
    with running(Noida()) as server:
        yield server


def start_relay(spawn: Spawner, database: Database, world: World, folder: Path) -> Process:
    lines = [f"{key} = {json.dumps(value)}" for key, value in world.table.items()]
    (folder / "outbox.toml").write_text("\n".join(["health_port = 0", "[destinations.broker]", *lines]))
    return spawn("outbox", "relay", env={"DATABASE_URL": database.url})


def say(database: Database, count: int, key: str | None = None) -> list[str]:
    with database.engine.begin() as connection:
        return [emit(connection, TYPE, {"contentId": f"{key}-{n}"}, ordering_key=key) for n in range(count)]


def all_settled(database: Database) -> bool:
    return database.scalar("SELECT count(*) FROM outbox_message") == 0


def stop(server: Server) -> None:
    server.stop()


def kill(server: Server) -> None:
    """Kill a broker that keeps what it confirmed; stop any other in order."""
    server.stop() if isinstance(server, Noida) else server.kill()


@pytest.mark.parametrize(
    ("fault", "repair"),
    [
        pytest.param(kill, Server.start, id="the broker is killed and started"),
        pytest.param(Server.freeze, Server.thaw, id="the broker is frozen for a while"),
    ],
)
def test_nothing_is_lost_and_keys_keep_their_order_when(
    behind: Behind, postgres_database: Database, spawn: Spawner, tmp_path: Path, fault: Fault, repair: Fault
) -> None:
    start_relay(spawn, postgres_database, behind.world, tmp_path)
    said: dict[str | None, list[str]] = defaultdict(list)

    def stream(rounds: int) -> None:
        for _ in range(rounds):
            for key in KEYS:
                said[key] += say(postgres_database, 2, key)
            said[None] += say(postgres_database, 20)

    stream(10)
    eventually(lambda: len(behind.ids()) > 50, deadline_s=30)
    if fault is kill and isinstance(behind.server, Noida):  # it does not write to disk what it confirms while it stops
        eventually(lambda: all_settled(postgres_database), deadline_s=30)
    fault(behind.server)
    stream(10)
    repair(behind.server)
    stream(5)
    eventually(lambda: all_settled(postgres_database), deadline_s=60)
    order = list(dict.fromkeys(behind.ids()))  # by first arrival
    assert set(order) == {each for ids in said.values() for each in ids}
    for key in KEYS:
        mine = set(said[key])
        assert [each for each in order if each in mine] == said[key]
    assert postgres_database.scalar("SELECT count(*) FROM outbox_delivery") == 0


def test_a_message_that_a_broker_refuses_in_a_batch_is_dead_alone(
    nats: NatsServer, postgres_database: Database, spawn: Spawner, tmp_path: Path
) -> None:
    asyncio.run(nats.on_jetstream(lambda js: js.add_stream(name="SMALL", subjects=["small"], max_msg_size=2000)))
    large = {"contentId": "large", "pad": "x" * 3000}
    with postgres_database.engine.begin() as connection:
        ids = [emit(connection, TYPE, large if n == 7 else {"contentId": str(n)}) for n in range(20)]
    start_relay(spawn, postgres_database, nats_world(nats, subject="small", **QUICK), tmp_path)
    eventually(lambda: len(nats.messages("SMALL")) == 19, deadline_s=30)
    query = "SELECT message_id, state FROM outbox_delivery"
    eventually(lambda: [(str(id_), state) for id_, state in postgres_database.rows(query)] == [(ids[7], "dead")])


def test_a_relay_killed_between_publish_and_settle_repeats_no_more_than_it_must(
    behind: Behind, postgres_database: Database, spawn: Spawner, tmp_path: Path
) -> None:
    ids = say(postgres_database, 3)
    with postgres_database.engine.connect() as holding:
        holding.execute(text("SELECT 1 FROM outbox_message FOR UPDATE"))  # readable, but locked against moving
        relay = start_relay(spawn, postgres_database, behind.world, tmp_path)
        eventually(lambda: len(behind.ids()) == 3, deadline_s=30)
        relay.kill()
        end_owning_sessions(postgres_database.url)  # and its last request to settle, as if it had never been sent
        holding.rollback()
    start_relay(spawn, postgres_database, behind.world, tmp_path)
    eventually(lambda: all_settled(postgres_database), deadline_s=40)
    copies = 1 if behind.knows_again else 2
    assert sorted(behind.ids()) == sorted(ids * copies)
