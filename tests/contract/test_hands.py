"""Every action of an operator takes effect on every relay, and is recorded."""

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from support.databases import Database
from support.scene import Outage, Scene, Taker, lane_of, rejecting, to
from support.waiting import eventually_async

from outbox.errors import OutboxError
from outbox.tables import tables
from relay.admin.access.queries import snapshot
from relay.admin.destinations.listing import list_destinations, pause, resume
from relay.admin.messages.cancel import cancel, cancellable
from relay.admin.messages.choice import Choice
from relay.admin.messages.dead import DeadFilter, retry
from relay.admin.messages.detail import show_message
from relay.decide.outcome import Outcome


def destination(scene: Scene, name: str = "a") -> Any:
    with snapshot(scene.database.engine) as connection:
        (found,) = [each for each in list_destinations(connection) if each.name == name]
    return found


def shown(scene: Scene, number: int) -> Any:
    """Return what `messages show` prints about the message with this number."""
    with scene.database.engine.connect() as connection:
        for table in (tables().message, tables().history):
            for row in connection.execute(sa.select(table.c.id, table.c.data)):
                if row.data["n"] == number:
                    return show_message(connection, row.id)
    return None


# ----------------------------------------------------------------------------------------------- pausing and resuming


async def test_a_paused_destination_gets_nothing_until_it_is_resumed(scene: Scene) -> None:
    taker, other = Taker(), Taker()
    async with scene.relay({"a": taker, "b": other}) as relay:
        await relay.drain()
        pause(scene.database.engine, "a", reason="a release")
        await eventually_async(lambda: lane_of(relay).health.operator_pause is not None)
        scene.emit(5)
        await eventually_async(lambda: len(other.taken) == 5)
        assert taker.attempts == []
        assert destination(scene).state == "paused"
        assert destination(scene).reason.startswith("a release (")
        assert (destination(scene).paused_by, destination(scene).waiting) == ("operator", 5)
        resume(scene.database.engine, "a")
        await scene.becomes(5, 0, 0, 0)
    assert sorted(taker.taken) == list(range(5))
    assert (destination(scene).state, destination(scene).reason) == ("healthy", None)


async def test_a_pause_outlives_the_relay(scene: Scene) -> None:
    taker = Taker()
    await scene.drain({"a": taker})
    pause(scene.database.engine, "a")
    scene.emit(3)
    await scene.drain({"a": taker})
    assert taker.attempts == []
    assert scene.account == (0, 3, 0, 0)


async def test_all_relays_see_a_pause_and_a_resume(postgres_database: Database) -> None:
    scene = Scene(postgres_database)
    async with scene.relay({"a": Taker()}) as first, scene.relay({"a": Taker()}) as second:
        pause(scene.database.engine, "a")
        await eventually_async(lambda: lane_of(first).health.operator_pause and lane_of(second).health.operator_pause)
        resume(scene.database.engine, "a")
        await eventually_async(lambda: lane_of(first).takes_messages and lane_of(second).takes_messages)


async def test_resuming_does_not_wait_for_the_next_probe_of_a_destination_that_was_down(scene: Scene) -> None:
    outage = Outage()
    taker = Taker(outage)
    patient = to(taker, backoff_s=3600, backoff_max_s=3600)
    scene.emit(10)
    async with scene.relay({"a": patient}) as relay:
        await eventually_async(lambda: lane_of(relay).breaker.condition == "open")
        await eventually_async(lambda: destination(scene).paused_by == "failure")
        assert destination(scene).until is not None
        outage.down = False
        resume(scene.database.engine, "a", reason="it is back")
        await scene.becomes(10, 0, 0, 0)
    assert destination(scene).state == "healthy"


async def test_a_single_message_under_suspicion_is_tried_again_on_a_resume(scene: Scene) -> None:
    outage = Outage()
    taker = Taker(outage)
    scene.emit(1)
    async with scene.relay({"a": to(taker, backoff_s=3600, backoff_max_s=3600)}) as relay:
        await eventually_async(lambda: lane_of(relay).breaker.suspects)
        outage.down = False
        resume(scene.database.engine, "a")
        await scene.becomes(1, 0, 0, 0)
    assert scene.attempts_charged() == 0


async def test_a_destination_that_was_gone_is_switched_off_until_it_is_resumed(scene: Scene) -> None:
    taker = Taker()
    gone = [True]

    async with scene.relay({"a": taker}) as relay:
        await relay.drain()
        pool = relay._running.loop_side.pools["a"]
        send = pool._send

        async def answers(message: Any) -> Outcome:
            return Outcome("gone", "HTTP 410") if gone[0] else await send(message)

        pool._send = answers
        scene.emit(2)
        await eventually_async(lambda: destination(scene).state == "off")
        gone[0] = False
        assert taker.attempts == []
        resume(scene.database.engine, "a")
        await scene.becomes(2, 0, 0, 0)
    assert destination(scene).state == "healthy"


async def test_a_resume_of_the_past_is_no_news_to_a_relay_that_starts(scene: Scene) -> None:
    await scene.drain({"a": Taker()})
    resume(scene.database.engine, "a")
    outage = Outage()
    scene.emit(10)
    async with scene.relay({"a": to(Taker(outage), backoff_s=3600, backoff_max_s=3600)}) as relay:
        await eventually_async(lambda: lane_of(relay).is_at_rest and lane_of(relay).breaker.condition == "open")
        tries = outage.tries_while_down
        seen = scene.database.scalar("SELECT max(last_seen_at) FROM outbox_relay")
        await eventually_async(lambda: scene.database.scalar("SELECT max(last_seen_at) FROM outbox_relay") > seen)
        await eventually_async(lambda: lane_of(relay).is_at_rest)
        assert outage.tries_while_down == tries


def test_a_destination_that_does_not_exist_cannot_be_paused(scene: Scene) -> None:
    for act in (pause, resume):
        with pytest.raises(OutboxError, match="there is no destination nowhere"):
            act(scene.database.engine, "nowhere")
    assert scene.audit() == []


async def test_every_action_is_one_line_in_the_audit(scene: Scene) -> None:
    await scene.drain({"a": Taker()})
    pause(scene.database.engine, "a", reason="a release")
    resume(scene.database.engine, "a")
    lines = [(each.action, each.target, each.count, each.reason) for each in scene.audit()]
    assert lines[-2:] == [("pause", {"destination": "a"}, 1, "a release"), ("resume", {"destination": "a"}, 1, None)]
    assert all("@" in each.actor and each.at is not None for each in scene.audit())


# ------------------------------------------------------------------------------------------------ unrouted messages


async def test_unrouted_messages_wait_until_an_operator_cancels_them(scene: Scene) -> None:
    taker = to(Taker(), events=["page.*"])
    scene.emit(1)
    scene.emit(3, type="debug.noise")
    scene.emit(2, type="audit.kept", ordering_key="k")
    async with scene.relay({"a": taker}):
        await scene.becomes(1, 0, 0, 5)
        with scene.database.engine.connect() as connection:
            found = [(each.type, each.count) for each in cancellable(connection, Choice(is_unrouted=True))]
            assert found == [("debug.noise", 3), ("audit.kept", 2)]
        noise = Choice(type_="debug.*", is_unrouted=True)
        assert cancel(scene.database.engine, noise, reason="noise") == 3
        await scene.becomes(1, 0, 0, 2)
        assert cancel(scene.database.engine, Choice(is_unrouted=True)) == 2
        await scene.becomes(1, 0, 0, 0)
        await eventually_async(lambda: scene.deliveries() == {})
    assert [(each.count, each.reason) for each in scene.audit()[-2:]] == [(3, "noise"), (2, None)]
    assert [(d.destination, d.state) for d in shown(scene, 1).deliveries] == [("nobody", "cancelled")]


async def test_unrouted_messages_that_were_cancelled_while_no_relay_ran_are_finished_by_the_next(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.admin.messages.cancel.BATCH", 3)
    taker = to(Taker(), events=["page.*"])
    scene.emit(10, type="debug.noise")
    await scene.drain({"a": taker})
    said: list[int] = []
    assert cancel(scene.database.engine, Choice(is_unrouted=True), on_progress=said.append) == 10
    assert said == [3, 6, 9, 10]
    async with scene.relay({"a": taker}):
        await scene.becomes(0, 0, 0, 0)


# --------------------------------------------------------------------------------------------- what happens next


async def test_any_message_is_shown_with_where_it_is_and_what_happens_next(scene: Scene) -> None:
    scene.emit(3, ordering_key="k")
    scene.emit(1)
    await scene.drain({"a": Taker(rejecting(0))})
    dead, blocked, done = shown(scene, 0), shown(scene, 1), shown(scene, 3)
    assert (dead.message.state, dead.deliveries[0].state) == ("held", "dead")
    assert f"outbox dead retry {dead.message.id}" in dead.deliveries[0].next
    assert blocked.deliveries[0].state == "blocked"
    assert dead.message.id in blocked.deliveries[0].next
    assert "dead: retry or discard" in blocked.deliveries[0].next
    assert (done.message.state, done.next) == ("delivered", "nothing: it is settled")


async def test_a_ready_message_names_its_destinations_and_the_lack_of_a_relay(scene: Scene) -> None:
    await scene.drain({"a": Taker(), "b": to(Taker(), events=["other"])})
    (n,) = scene.emit(1)
    found = shown(scene, n)
    assert found.message.state == "ready"
    assert "outbox relay" in found.next
    assert [(each.destination, each.state) for each in found.deliveries] == [("a", "waiting")]


async def test_a_message_for_a_paused_destination_says_who_paused_it_and_how_to_resume(scene: Scene) -> None:
    await scene.drain({"a": Taker()})
    pause(scene.database.engine, "a", reason="a release")
    (n,) = scene.emit(1)
    (delivery,) = shown(scene, n).deliveries
    assert delivery.next.startswith("an operator paused a: a release (")
    assert delivery.next.endswith("; `outbox resume a` ends the pause")


async def test_a_message_that_waits_in_a_running_relay_names_it(scene: Scene) -> None:
    outage = Outage()
    async with scene.relay({"a": to(Taker(outage), backoff_s=3600, backoff_max_s=3600)}) as relay:
        (n,) = scene.emit(1)
        await eventually_async(lambda: destination(scene).note is not None)
        found = destination(scene)
        assert found.state == "healthy"
        assert found.note.startswith("1 message failing: ")
        assert found.note.endswith("raised ConnectionError: down")
        await eventually_async(lambda: shown(scene, n).owner == relay.id)
        (delivery,) = shown(scene, n).deliveries
        assert delivery.next == f"relay {relay.id} sends it (a: {found.note})"


async def test_a_note_about_failures_does_not_outlive_its_relay(scene: Scene) -> None:
    await scene.drain({"a": to(Taker())})
    scene.database.execute("UPDATE outbox_destination SET note = '1 message failing: connection refused'")
    async with scene.relay({"a": to(Taker())}):
        await eventually_async(lambda: destination(scene).note is None)


async def test_a_scheduled_and_an_unrouted_message_say_what_they_wait_for(scene: Scene) -> None:
    await scene.drain({"a": to(Taker(), events=["page.*"])})
    (later,) = scene.emit(1, delay=timedelta(hours=1))
    (unwanted,) = scene.emit(1, type="debug.noise")
    await scene.drain({"a": to(Taker(), events=["page.*"])})
    assert "falls due at" in shown(scene, later).next
    assert shown(scene, later).deliveries[0].next.startswith("it waits for its time; ")
    assert "subscription wants debug.noise" in shown(scene, unwanted).next


async def test_a_retried_message_shows_what_happened_before(scene: Scene) -> None:
    scene.emit(1)
    await scene.drain({"a": Taker(rejecting(0))})
    retry(scene.database.engine, DeadFilter())
    (delivery,) = shown(scene, 0).deliveries
    assert (delivery.state, delivery.attempts, len(delivery.log)) == ("parked", 0, 1)
    assert "not 0" in delivery.reason
