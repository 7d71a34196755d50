"""/healthz, /readyz and /metrics of a real relay."""

import asyncio
import http.client
import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.consuming import consuming
from support.databases import Database
from support.ports import free_port
from support.postgres import PostgresServer
from support.processes import Process, Spawner
from support.rabbitmq import RabbitServer
from support.receiving import extracted
from support.waiting import eventually, eventually_async
from support.worlds import rabbitmq_world

from outbox import emit
from outbox.testing.destination_contract import assert_taken, message
from relay.observe.health import Health, HealthServer
from relay.observe.metrics import Metrics

ROUTE = "/extraction/internal/completed"
FAILING = """
[destinations.{name}]
kind = "listener"
listener = "health_listener:on_anything"
"""


def get(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def readiness(port: int) -> tuple[int, dict[str, object]]:
    status, body = get(port, "/readyz")
    return status, json.loads(body)


@pytest.fixture
def start(spawn: Spawner, tmp_path: Path) -> Callable[..., tuple[Process, int]]:
    """`start(url)` returns a relay with one listener, and the port of its health pages."""
    (tmp_path / "health_listener.py").write_text("def on_anything(message):\n    1 / message.data['divisor']\n")
    (tmp_path / "outbox.toml").write_text(FAILING.format(name="divider"))

    def start(url: str, port: int | None = None) -> tuple[Process, int]:
        port = free_port() if port is None else port
        return spawn("outbox", "relay", env={"DATABASE_URL": url, "OUTBOX_HEALTH_PORT": str(port)}), port

    return start


def is_ready(port: int) -> bool:
    return readiness(port)[0] == 200


def test_a_relay_is_alive_and_ready_and_has_metrics(
    start: Callable[..., tuple[Process, int]], database: Database
) -> None:
    _, port = start(database.url)
    eventually(lambda: is_ready(port), ignoring=(OSError,), deadline_s=30)
    assert get(port, "/healthz")[0] == 200
    eventually(lambda: readiness(port)[1]["owns"] == 64, deadline_s=30)
    assert "# TYPE outbox_owned_shards gauge" in get(port, "/metrics")[1]
    assert get(port, "/nothing")[0] == 404


def test_a_failing_destination_makes_no_process_unready(
    start: Callable[..., tuple[Process, int]], sqlite_database: Database
) -> None:
    relay, port = start(sqlite_database.url)
    eventually(lambda: is_ready(port), ignoring=(OSError,), deadline_s=30)
    with sqlite_database.engine.begin() as connection:
        for _ in range(5):
            emit(connection, "a.b", {"divisor": 0})
    relay.wait_for_output("destination_down")
    assert is_ready(port)


def test_without_its_database_it_is_alive_and_not_ready(
    start: Callable[..., tuple[Process, int]], private_postgres: Callable[..., PostgresServer]
) -> None:
    from relay.databases.migrations import upgrade

    server = private_postgres()
    upgrade(server.url())
    relay, port = start(server.url())
    eventually(lambda: is_ready(port), ignoring=(OSError,), deadline_s=30)
    server.stop()
    eventually(lambda: not is_ready(port), deadline_s=30)
    assert get(port, "/healthz")[0] == 200
    assert readiness(port)[1]["database"] is False
    server.start()
    eventually(lambda: is_ready(port), deadline_s=60)
    assert relay.is_running


def test_it_is_alive_while_it_waits_for_a_database_at_its_start(start: Callable[..., tuple[Process, int]]) -> None:
    _, port = start(f"postgresql://app@127.0.0.1:{free_port()}/app")
    eventually(lambda: get(port, "/healthz")[0] == 200, ignoring=(OSError,), deadline_s=30)
    assert readiness(port)[0] == 503


def test_a_port_in_use_is_one_warning_and_the_relay_works_on(
    start: Callable[..., tuple[Process, int]], sqlite_database: Database
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        relay, _ = start(sqlite_database.url, taken.getsockname()[1])
        relay.wait_for_output("relay_started", deadline_s=30)
        with sqlite_database.engine.begin() as connection:
            emit(connection, "a.b", {"divisor": 1})
        eventually(lambda: sqlite_database.scalar("SELECT count(*) FROM outbox_history") == 1)
        assert relay.stderr.count("OUTBOX_HEALTH_PORT") == 1


class Well:
    def __init__(self, **state: object) -> None:
        self.database, self.schema, self.loop_age_s, self.owns, self.detail = True, True, 0.1, 64, ""
        self.__dict__.update(state)

    def health(self) -> Health:
        return self


@pytest.mark.parametrize(
    ("state", "status"),
    [({}, 200), ({"owns": 0}, 200), ({"database": False}, 503), ({"schema": False}, 503), ({"loop_age_s": 16.0}, 503)],
)
async def test_ready_is_database_schema_and_a_loop_that_turns(state: dict[str, object], status: int) -> None:
    port = free_port()
    async with HealthServer(Well(**state), port, stale_after_s=15):
        found = await asyncio.to_thread(readiness, port)
    assert found[0] == status
    assert found[1]["ready"] is (status == 200)


async def test_the_page_needs_no_login_and_so_names_no_host_role_or_password() -> None:
    port = free_port()
    detail = "cannot reach postgresql://app:hunter2@db.internal:5432/app as role app\n\x1b[31m"
    async with HealthServer(Well(database=False, detail=detail), port):
        _, body = await asyncio.to_thread(get, port, "/readyz")
    assert json.loads(body)["detail"] == "it cannot work now; its log says why"
    assert not {word for word in ("hunter2", "db.internal", "5432", "role", "\\u001b") if word in body}


async def test_port_0_serves_nothing_and_only_loopback_is_served() -> None:
    async with HealthServer(Well(), 0):
        pass
    port = free_port()
    async with HealthServer(Well(), port):
        own = socket.gethostbyname(socket.gethostname())
        if not own.startswith("127."):
            with pytest.raises(OSError, match="refused"):
                await asyncio.to_thread(get, port, "/healthz", own)


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.2", "localhost"])
async def test_it_is_served_where_it_is_told_to_be(host: str) -> None:
    port = free_port()
    async with HealthServer(Well(), port, host=host):
        reached = await asyncio.to_thread(get, port, "/healthz", "127.0.0.2" if host == "0.0.0.0" else host)
    assert reached[0] == 200


def test_a_relay_is_told_by_flag_or_variable_where_its_health_is(
    spawn: Spawner, sqlite_database: Database, start: Callable[..., tuple[Process, int]]
) -> None:
    port = free_port("127.0.0.2")
    arguments = ("--health-host", "127.0.0.2", "--health-port", str(port), "--processes", "2")
    spawn("outbox", "relay", *arguments, env={"DATABASE_URL": sqlite_database.url})
    for each in (port, port + 1):
        eventually(lambda p=each: get(p, "/healthz", "127.0.0.2")[0] == 200, ignoring=(OSError,), deadline_s=30)
    with pytest.raises(OSError, match="refused"):
        get(port, "/healthz")


async def test_an_address_that_is_not_of_this_machine_is_one_warning_with_the_reason() -> None:
    with capture_logs() as said:
        async with HealthServer(Well(), free_port(), host="192.0.2.1"):
            pass
    (warning,) = said
    assert (warning["event"], warning["host"]) == ("health_port_unavailable", "192.0.2.1")
    assert "taken" not in warning["reason"]


async def test_a_consumer_is_ready_while_it_consumes(rabbitmq: RabbitServer, sqlite_database: Database) -> None:
    port = free_port()
    source = consuming(rabbitmq, sqlite_database, listener=lambda message: None)
    async with source as consumer, HealthServer(consumer, port):
        await eventually_async(lambda: asyncio.to_thread(is_ready, port))
        await asyncio.to_thread(rabbitmq.kill)
        await eventually_async(lambda: asyncio.to_thread(lambda: not is_ready(port)))
        status, body = await asyncio.to_thread(readiness, port)
        assert (status, body["broker"]) == (503, False)
        assert body["detail"]
        assert (await asyncio.to_thread(get, port, "/healthz"))[0] == 200
        await asyncio.to_thread(rabbitmq.recover)
        await eventually_async(lambda: asyncio.to_thread(is_ready, port), deadline_s=60)


def test_outbox_consume_has_pages_and_counts_what_its_inbox_recognises(
    rabbitmq: RabbitServer, spawn: Spawner, sqlite_database: Database
) -> None:
    port = free_port()
    environ = {"DATABASE_URL": sqlite_database.url, "AMQP_URL": rabbitmq.url}
    spawn("outbox", "consume", "--health-port", str(port), env=environ)
    eventually(lambda: is_ready(port), ignoring=(OSError,), deadline_s=30)
    assert get(port, "/healthz")[0] == 200
    extracted(sqlite_database)
    asyncio.run(_send_twice(rabbitmq))
    for result in ("new", "duplicate"):
        counted = f'outbox_inbox_messages_total{{listener="baseline",result="{result}"}} 1.0'
        eventually(lambda counted=counted: counted in get(port, "/metrics")[1], deadline_s=30, what=counted)


async def _send_twice(rabbitmq: RabbitServer) -> None:
    sent = message(data={"contentId": "test-content-id"})
    async with rabbitmq_world(rabbitmq).destination() as destination:
        for _ in range(2):
            assert_taken(await destination.send(sent))


def test_outbox_serve_has_pages_and_counts_its_answers(spawn: Spawner, sqlite_database: Database) -> None:
    port, health = free_port(), free_port()
    environ = {"DATABASE_URL": sqlite_database.url, "INTERNAL_API_SECRET": "secret-of-the-api-" + "s" * 16}
    spawn("outbox", "serve", "--port", str(port), env={**environ, "OUTBOX_HEALTH_PORT": str(health)})
    eventually(lambda: is_ready(health), ignoring=(OSError,), deadline_s=30)
    assert get(health, "/healthz")[0] == 200
    assert [get(port, path)[0] for path in ("/healthz", "/readyz", "/metrics")] == [200, 200, 404]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", ROUTE, body="{}", headers={"X-Internal-Secret": "wrong"})
    assert connection.getresponse().status == 401
    connection.close()
    counted = f'outbox_http_request_seconds_count{{route="{ROUTE}",status="401"}} 1.0'
    eventually(lambda: counted in get(health, "/metrics")[1], what=counted)


async def test_two_relays_in_one_process_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first.delivered("api", 1000, [0.004] * 16)
    assert b'destination="api"' not in second.text()
    assert b'outbox_latency_seconds_count{destination="api"} 1000.0' in first.text()
    assert b'outbox_latency_seconds_bucket{destination="api",le="0.005"} 1000.0' in first.text()
