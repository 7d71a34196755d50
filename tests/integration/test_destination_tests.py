"""`outbox destinations test` for each kind that works; and what the doctor says of removed or damaged things."""

from __future__ import annotations

import json
from pathlib import Path

from support.commands import Run
from support.databases import Database
from support.ports import free_port
from support.rabbitmq import RabbitServer
from support.receivers import Receiver, answering
from support.scene import Scene, Taker, rejecting, to

from relay.admin.destinations.probe import probe
from relay.destinations.http.settings import HttpSettings
from relay.destinations.rabbitmq.settings import RabbitSettings


async def test_an_http_destination_that_answers_is_well_and_gets_no_message(sqlite_database: Database) -> None:
    async with Receiver(answering(405, b"")) as receiver:
        settings = Scene(sqlite_database).settings({"api": HttpSettings(url=receiver.url, secret="s" * 32)})
        found = await probe("api", settings)
        receiver.behave = answering(410, b"")
        gone = await probe("api", settings)
    assert (found.well, found.said) == (True, "it answered 405 to OPTIONS")
    assert (gone.well, gone.said) == (False, "it answered 410 to OPTIONS")
    assert [(request.method, request.body) for request in receiver.requests] == [("OPTIONS", b"")] * 2
    assert receiver.requests[0].header("x-internal-secret") is None


async def test_a_destination_that_is_down_is_described_in_a_relays_words(sqlite_database: Database) -> None:
    settings = Scene(sqlite_database).settings({"api": HttpSettings(url=f"http://127.0.0.1:{free_port()}/")})
    found = await probe("api", settings)
    assert (found.well, found.said.split(":")[0]) == (False, "no connection to 127.0.0.1")


async def test_a_broker_that_lets_us_in_is_well(sqlite_database: Database, rabbitmq: RabbitServer) -> None:
    settings = Scene(sqlite_database).settings({"rabbitmq": RabbitSettings(url=rabbitmq.url)})
    found = await probe("rabbitmq", settings)
    assert (found.well, found.said) == (True, "the broker lets us in")


def test_a_listener_that_can_be_imported_is_well(run: Run, sqlite_database: Database, tmp_path: Path) -> None:
    (tmp_path / "well_meant.py").write_text("def on_completed(message):\n    pass\n")
    (tmp_path / "outbox.toml").write_text('[destinations.a]\nkind = "listener"\nlistener = "well_meant:on_completed"\n')
    ended = run("destinations", "test", "a", url=sqlite_database.url)
    assert (ended.returncode, "the listener exists" in ended.stderr) == (0, True)


async def test_the_doctor_names_a_removed_destination_that_has_dead_letters(run: Run, database: Database) -> None:
    scene = Scene(database)
    scene.emit(1)
    await scene.drain({"a": to(Taker(rejecting(0)))})
    await scene.drain({"b": Taker()}, apply=True)
    found = json.loads(run("doctor", "--json", url=database.url).stdout)
    (removed,) = [each for each in found if each["check"] == "destinations"]
    assert removed["severity"] == "bad"
    assert removed["what"].startswith("a is removed")


def test_the_doctor_names_a_damaged_file(run: Run, sqlite_database: Database) -> None:
    path = Path(sqlite_database.url.removeprefix("sqlite:///"))
    sqlite_database.execute("CREATE TABLE last_in_the_file AS SELECT zeroblob(2000) FROM outbox_shard")
    sqlite_database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    sqlite_database.engine.dispose()
    page = 4096
    octets = bytearray(path.read_bytes())
    octets[-page:] = b"\xff" * page
    path.write_bytes(octets)
    ended = run("doctor", "--json", url=sqlite_database.url)
    found = {each["check"]: each["severity"] for each in json.loads(ended.stdout)}
    assert (ended.returncode, found["file"]) == (4, "bad")
