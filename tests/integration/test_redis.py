"""How the Redis destination interprets a server's answers, and how a message looks in a stream."""

import json
from functools import partial
from pathlib import Path

import pytest
from support import sending
from support.commands import Run
from support.databases import Database
from support.ports import free_port
from support.redis import PASSWORD, RedisServer
from support.scene import Scene
from support.sending import message, sent_until_taken

from relay.admin.destinations.probe import probe
from relay.destinations import registry
from relay.settings import Settings

STREAM = "extraction.completed"

settings_of = partial(sending.settings_of, "redis")
destination = partial(sending.destination, "redis")


async def test_an_entry_has_the_attributes_as_fields_and_the_data_as_it_is(redis: RedisServer) -> None:
    sent = message(subject="contents/1", ordering_key="c-1", headers={"x-tenant": "7", "traceparent": "00-1-2-01"})
    async with destination(url=redis.url) as made:
        assert (await made.send(sent)).kind == "taken"
    (entry,) = redis.entries(STREAM)
    assert {name.decode(): value.decode() for name, value in entry.items()} == {
        "specversion": "1.0",
        "id": sent.id,
        "type": STREAM,
        "source": "outbox",
        "time": "2026-01-01T10:00:00Z",
        "datacontenttype": "application/json",
        "subject": "contents/1",
        "partitionkey": "c-1",
        "traceparent": "00-1-2-01",
        "headers": '{"x-tenant": "7"}',
        "data": '{"contentId": "c-1"}',
    }


async def test_a_stream_is_named_by_the_type_or_as_the_settings_say(redis: RedisServer) -> None:
    async with destination(url=redis.url, stream="events:{type}") as made:
        await made.send(message("report.wanted"))
    async with destination(url=redis.url, stream="everything") as made:
        await made.send_many([message("report.wanted"), message()])
    assert [len(redis.entries(name)) for name in ("events:report.wanted", "everything")] == [1, 2]


async def test_nothing_is_trimmed_unless_asked_for_and_then_a_check_says_that_it_loses(redis: RedisServer) -> None:
    many = [message() for _ in range(1000)]
    async with destination(url=redis.url) as made:
        await made.send_many(many)
    assert len(redis.entries(STREAM)) == 1000
    async with destination(url=redis.url, maxlen=10) as made:
        await made.send_many(many)
    assert len(redis.entries(STREAM)) < 1000
    kind = registry.kind("redis")
    assert kind.warnings(settings_of(url=redis.url), "the file") == ()
    assert (
        "drops the oldest entries, read or not" in kind.warnings(settings_of(url=redis.url, maxlen=10), "the file")[0]
    )


async def test_what_is_wrong_with_one_stream_condemns_no_neighbour_in_a_batch(redis: RedisServer) -> None:
    redis.use("SET", "report.wanted", "no stream")
    async with destination(url=redis.url) as made:
        outcomes = await made.send_many([message(), message("report.wanted"), message()])
    assert [each.kind for each in outcomes] == ["taken", "unanswered", "taken"]
    assert "WRONGTYPE" in outcomes[1].reason
    assert len(redis.entries(STREAM)) == 2


async def test_what_is_wrong_with_the_only_stream_is_no_messages_fault(redis: RedisServer) -> None:
    redis.use("SET", "everything", "no stream")
    async with destination(url=redis.url, stream="everything") as made:
        assert (await made.send(message())).kind == "unanswered"


async def test_a_stream_that_is_forbidden_is_a_fault_of_its_type_alone(redis: RedisServer) -> None:
    redis.use("ACL", "SETUSER", "relay", "on", ">relay-password", f"~{STREAM}", "+@all")
    url = redis.url.replace(f":{PASSWORD}@", "relay:relay-password@")
    async with destination(url=url) as made:
        outcomes = await made.send_many([message(), message("report.wanted")])
    assert [each.kind for each in outcomes] == ["taken", "unanswered"]


async def test_a_user_that_may_append_and_nothing_else_is_enough(redis: RedisServer) -> None:
    redis.use("ACL", "SETUSER", "writer", "on", ">writer-password", "~*", "-@all", "+xadd")
    url = redis.url.replace(f":{PASSWORD}@", "writer:writer-password@")
    async with destination(url=url) as made:
        assert (await made.send(message())).kind == "taken"
    assert len(redis.entries(STREAM)) == 1


@pytest.mark.parametrize("state", ["out of memory", "a replica", "a wrong password", "connection refused"])
async def test_a_server_that_takes_nothing_charges_no_message(redis: RedisServer, state: str) -> None:
    url = redis.url
    match state:
        case "out of memory":
            redis.use("CONFIG", "SET", "maxmemory", "1")
        case "a replica":
            redis.use("REPLICAOF", "127.0.0.1", free_port())
        case "a wrong password":
            url = url.replace(PASSWORD, "wrong")
        case _:
            url = f"redis://127.0.0.1:{free_port()}/0"
    try:
        async with destination(url=url) as made:
            outcomes = [await made.send(message()), await made.send_many([message(), message()])]
    finally:
        redis.use("REPLICAOF", "NO", "ONE")
    assert {each.kind for each in outcomes} == {"unreachable"}
    assert PASSWORD not in "".join(each.reason for each in outcomes)


async def test_a_frozen_server_is_given_up_in_time_and_found_again(redis: RedisServer) -> None:
    async with destination(url=redis.url, timeout_s=0.3) as made:
        await sent_until_taken(made, message())
        redis.freeze()
        outcome = await made.send(message())
        redis.thaw()
        assert (outcome.kind, "did not answer within 0.3 s" in outcome.reason) == ("unanswered", True)
        await sent_until_taken(made, message())


async def test_a_probe_says_that_idempotent_publishing_is_missing_where_the_server_has_none(redis: RedisServer) -> None:
    if redis.version >= (8, 6):
        pytest.xfail("this server has it")
    assert "a message that is sent twice gets another entry" in await said_of(redis)


async def test_a_message_that_is_published_twice_is_stored_once_where_the_server_can(
    recent_redis: RedisServer,
) -> None:
    sent = [message() for _ in range(10)]
    for _ in range(2):
        async with destination(url=recent_redis.url) as made:
            assert (await made.send(sent[0])).kind == "taken"
            assert (await made.send_many(sent)).kind == "taken"
    assert ids_in(recent_redis) == [each.id for each in sent]
    assert "a message that is sent twice is dropped" in await said_of(recent_redis)


async def test_a_killed_server_knows_after_its_start_what_it_had(recent_redis: RedisServer) -> None:
    sent = message()
    async with destination(url=recent_redis.url) as made:
        assert (await made.send(sent)).kind == "taken"
        recent_redis.kill()
        recent_redis.start()
        while (await made.send(sent)).kind != "taken":  # its old connection fails first
            pass
    assert ids_in(recent_redis) == [sent.id]


async def test_thousands_of_messages_are_known_again(recent_redis: RedisServer) -> None:
    """Redis remembers 100 ids per producer, so the destination uses many producers."""
    sent = [message() for _ in range(5_000)]
    async with destination(url=recent_redis.url, maxlen=100_000) as made:
        for _ in range(2):
            for begin in range(0, len(sent), 1000):
                assert (await made.send_many(sent[begin : begin + 1000])).kind == "taken"
    assert ids_in(recent_redis) == [each.id for each in sent]


def ids_in(server: RedisServer) -> list[str]:
    return [entry[b"id"].decode() for entry in server.entries(STREAM)]


async def said_of(server: RedisServer) -> str:
    """Return what `outbox destinations test` prints about it."""
    return (await probe("redis", Settings(destinations={"redis": settings_of(url=server.url)}))).said


def test_a_doctor_says_what_this_redis_may_lose(
    redis: RedisServer, run: Run, database: Database, tmp_path: Path
) -> None:
    Scene(database)

    def said() -> list[tuple[str, str]]:
        return said_by_a_doctor(redis, run, database, tmp_path)

    twice = ("note", f"Redis {'.'.join(map(str, redis.version))} has no idempotent publishing")
    known = [twice] if redis.version < (8, 6) else []
    assert said() == (known or [("ok", "no risk found")])
    redis.use("CONFIG", "SET", "appendfsync", "everysec")
    redis.use("CONFIG", "SET", "maxmemory", "1gb", "maxmemory-policy", "allkeys-lru")
    assert said() == [
        ("note", "Redis has appendfsync everysec"),
        ("note", "Redis has maxmemory-policy allkeys-lru"),
        *known,
    ]


def test_a_doctor_finds_nothing_against_a_recent_redis(
    recent_redis: RedisServer, run: Run, sqlite_database: Database, tmp_path: Path
) -> None:
    Scene(sqlite_database)
    assert said_by_a_doctor(recent_redis, run, sqlite_database, tmp_path) == [("ok", "no risk found")]


def said_by_a_doctor(server: RedisServer, run: Run, database: Database, folder: Path) -> list[tuple[str, str]]:
    (folder / "outbox.toml").write_text(f'[destinations.streams]\nkind = "redis"\nurl = "{server.url}"\n')
    found = json.loads(run("doctor", "--json", url=database.url).stdout)
    return [(each["severity"], each["what"]) for each in found if each["check"] == "destination streams"]
