"""How the NATS destination interprets a server's answers, and how a message looks in a stream."""

from functools import partial
from typing import Any

import pytest
from pydantic import ValidationError
from support import sending
from support.nats import PASSWORD, STREAM, USER, NatsServer
from support.ports import free_port
from support.sending import message, sent_until_taken

from relay.admin.destinations.probe import probe
from relay.destinations import registry
from relay.observe import process
from relay.settings import Settings

TYPE = "extraction.completed"

settings_of = partial(sending.settings_of, "nats")
destination = partial(sending.destination, "nats")


async def in_stream(nats: NatsServer, stream: str = STREAM) -> list[Any]:
    from support.nats import _all

    return await nats.on_jetstream(lambda js: _all(js, stream))


async def test_a_message_is_an_event_in_binary_mode_under_its_id(nats: NatsServer) -> None:
    headers = {"x-tenant": "7", "traceparent": "00-1-2-01", "Nats-Msg-Id": "not-the-producers"}
    sent = message(subject="contents/1 ✓", ordering_key="c-1", headers=headers)
    async with destination(url=nats.url) as made:
        assert (await made.send(sent)).kind == "taken"
    (stored,) = await in_stream(nats)
    assert (stored.subject, stored.data) == (TYPE, b'{"contentId": "c-1"}')
    assert stored.headers == {
        "ce-specversion": "1.0",
        "ce-id": sent.id,
        "ce-type": TYPE,
        "ce-source": "outbox",
        "ce-time": "2026-01-01T10:00:00+00:00",
        "ce-subject": "contents/1%20%E2%9C%93",
        "ce-partitionkey": "c-1",
        "Content-Type": "application/json",
        "x-tenant": "7",
        "traceparent": "00-1-2-01",
        "Nats-Msg-Id": sent.id,
    }


async def test_a_subject_may_have_the_type_and_the_key(nats: NatsServer) -> None:
    async with destination(url=nats.url, subject="extraction.{type}.{key}") as made:
        await made.send_many([message("a.b", ordering_key="k.1 *"), message("a.b")])
    assert [each.subject for each in await in_stream(nats)] == ["extraction.a.b.k%2E1%20%2A", "extraction.a.b.-"]


async def test_what_is_sent_again_is_stored_once_and_taken_each_time(nats: NatsServer) -> None:
    count, of = process.REGISTRY.get_sample_value, {"destination": "tested"}
    before = count("outbox_broker_duplicates_total", of) or 0
    sent = [message() for _ in range(3)]
    async with destination(url=nats.url) as made:
        for _ in range(2):
            assert (await made.send_many(sent)).kind == "taken"
    assert len(await in_stream(nats)) == 3
    assert count("outbox_broker_duplicates_total", of) == before + 3


async def test_a_subject_that_no_stream_takes_is_an_outage_with_that_reason(nats: NatsServer) -> None:
    for subject in ("reports.{type}", f"reports.{TYPE}"):
        async with destination(url=nats.url, subject=subject) as made:
            outcome = await made.send(message())
        assert outcome.kind == "unanswered"
        assert outcome.reason.startswith("no stream takes the subject reports.extraction.completed: create one")


async def test_a_subject_that_another_stream_took_over_is_an_outage(nats: NatsServer) -> None:
    async with destination(url=nats.url, stream="REPORTS") as made:
        assert (await made.send(message())).kind == "unreachable"
    assert await in_stream(nats) == []


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"subject": "a b"}, "subject"),
        ({"subject": "{topic}"}, "{topic} is not known here: use {type} and {key}"),
        ({"url": "http://localhost"}, "must be nats://user:password@host:4222"),
    ],
)
def test_settings_that_cannot_work_are_refused(table: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        settings_of(**{"url": "nats://localhost", **table})
    assert said in str(caught.value)


async def test_what_is_too_large_is_refused_alone_and_the_connection_is_kept(nats: NatsServer) -> None:
    body = '{"pad": "%s"}' % ("x" * (300 * 1024 - 100))
    async with destination(url=nats.url) as made:
        outcomes = await made.send_many([message(), message(data=body), message(data='"' + "x" * 400_000 + '"')])
        before = await made._connections.get()
        assert (await made.send(message())).kind == "taken"
        assert await made._connections.get() is before
    assert [each.kind for each in outcomes] == ["taken", "refused", "refused"]


async def test_a_message_that_the_stream_finds_too_large_is_refused(nats: NatsServer) -> None:
    await nats.on_jetstream(lambda js: js.add_stream(name="SMALL", subjects=["small"], max_msg_size=1000))
    async with destination(url=nats.url, subject="small") as made:
        outcomes = await made.send_many([message(data='"' + "x" * 2000 + '"'), message()])
    assert [each.kind for each in outcomes] == ["refused", "taken"]


async def test_a_subject_that_is_forbidden_condemns_no_neighbour(nats: NatsServer) -> None:
    url = nats.url.replace(f"{USER}:", "limited:")
    async with destination(url=url) as made:
        outcomes = await made.send_many([message("report.wanted"), message()])
    assert [each.kind for each in outcomes] == ["unanswered", "taken"]
    assert "forbids publishing to report.wanted" in outcomes[0].reason


async def test_a_stream_that_is_full_is_an_outage(nats: NatsServer) -> None:
    await nats.on_jetstream(lambda js: js.add_stream(name="FULL", subjects=["full"], max_msgs=1, discard="new"))
    async with destination(url=nats.url, subject="full") as made:
        assert (await made.send(message())).kind == "taken"
        assert (await made.send(message())).kind == "unreachable"


@pytest.mark.parametrize("state", ["a wrong password", "connection refused"])
async def test_a_server_that_lets_nothing_in_charges_no_message(nats: NatsServer, state: str) -> None:
    wrong = nats.url.replace(PASSWORD, "wrong-password")
    url = wrong if state == "a wrong password" else f"nats://127.0.0.1:{free_port()}"
    async with destination(url=url) as made:
        outcomes = [await made.send(message()), await made.send_many([message(), message()])]
    assert {each.kind for each in outcomes} == {"unreachable"}
    assert "wrong-password" not in "".join(each.reason for each in outcomes)


async def test_the_next_server_is_tried_when_one_is_away(nats: NatsServer) -> None:
    async with destination(url=f"nats://127.0.0.1:{free_port()},{nats.url}") as made:
        assert (await made.send(message())).kind == "taken"


async def test_a_frozen_server_is_given_up_in_time_and_what_it_had_is_stored_once(nats: NatsServer) -> None:
    sent = [message() for _ in range(3)]
    async with destination(url=nats.url, timeout_s=0.5) as made:
        await sent_until_taken(made, message())
        nats.freeze()
        outcome = await made.send_many(sent)
        nats.thaw()
        assert {each.kind for each in outcome} == {"unanswered"}
        assert "did not acknowledge within 0.5 s" in outcome[0].reason
        await sent_until_taken(made, *sent)
    assert len(await in_stream(nats)) == 4


async def test_a_probe_names_the_subject_that_no_stream_takes(nats: NatsServer) -> None:
    async def probed(**table: Any) -> tuple[bool, str]:
        found = await probe("nats", Settings(destinations={"nats": settings_of(url=nats.url, **table)}))
        return found.well, found.said

    assert await probed(events=[TYPE]) == (True, f"the server lets us in, and takes our subjects into {STREAM}")
    assert await probed(events=["report.wanted"]) == (
        False,
        "the server lets us in, and has no stream for report.wanted",
    )


async def test_a_doctor_says_what_a_stream_may_lose(nats: NatsServer) -> None:
    await nats.on_jetstream(lambda js: js.add_stream(name="MEMORY", subjects=["memory"], storage="memory"))
    risks = registry.kind("nats").risks
    assert risks is not None
    in_memory = await risks("nats", settings_of(url=nats.url, subject="memory"))
    on_disk = await risks("nats", settings_of(url=nats.url, events=[TYPE]))
    assert [each.what for each in (*in_memory, *on_disk)] == [
        "the stream MEMORY is in memory",
        f"the stream {STREAM} has one replica",
    ]
