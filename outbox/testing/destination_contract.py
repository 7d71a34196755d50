"""The promises of every kind of destination, as checks that a package can run against its own kind.

A test makes a `World`: the other side that the destination sends to, and a way to see what arrived there. The test
calls each of `PROMISES` with a `World`. A promise that is not kept raises `AssertionError`::

    @pytest.mark.parametrize("promise", destination_contract.PROMISES, ids=str)
    def test_a_file_keeps_the_contract(promise, tmp_path):
        path = tmp_path / "events.jsonl"
        promise(World({"kind": "file", "path": str(path)}, taken=lambda: read(path)))

The kind is found by its name, so its package must be installed. No plugin of pytest is needed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from outbox.checks.ids import new_id
from outbox.message import Message

if TYPE_CHECKING:
    from relay.decide.outcome import Outcome
    from relay.destinations.contract import Destination
    from relay.destinations.policy import DestinationPolicy

DEADLINE_S = 90.0
AGAIN_S = 0.05  # between two checks of a condition
AT_ONCE = 32
ODD_DATA: tuple[Any, ...] = (
    None,
    [],
    "",
    {"text": "ÄÖÜ €uro \U0001f4e6 \u2028", "quotes": "\"'\\", "number": 1e300},
    {"long": "x" * 200_000},
)
ODD_HEADERS = {
    "plain": "value",
    "spaced": " a  b ",
    "letters": "zwölf €",
    "traceparent": "00-" + "1" * 32 + "-" + "2" * 16,
}
OUTAGE = ("unreachable", "unanswered", "throttled")


class Taken(NamedTuple):
    """A message that has arrived.

    Args:
        id: Its id, as the receiver can see it.
        body: Its data, as JSON in bytes.
    """

    id: str
    body: bytes


@dataclass(frozen=True)
class World:
    """The other side of a destination under test. Its functions are called in a thread, so they may block.

    Args:
        table: The destination's table, as in ``outbox.toml``.
        taken: Returns everything that has arrived, in the order of arrival.
        away: Keeps the other side unreachable while the context is open. ``None``: it is always reachable, and the
            promises about outages are skipped.
    """

    table: Mapping[str, Any]
    taken: Callable[[], Sequence[Taken]]
    away: Callable[[], AbstractContextManager[object]] | None = None

    @property
    def settings(self) -> DestinationPolicy:
        """Return the table as a relay parses it."""
        from relay.settings import Settings

        return Settings.model_validate({"destinations": {"tested": dict(self.table)}}).destinations["tested"]

    @asynccontextmanager
    async def destination(self) -> AsyncIterator[Destination]:
        """Yield the destination, started; close it afterwards."""
        made = self.build()
        await made.start()
        try:
            yield made
        finally:
            await made.close()

    def build(self) -> Destination:
        """Make the destination as a relay makes it."""
        from relay.destinations.registry import build
        from relay.platform.database import Database

        return build("tested", self.settings, Database.parse("sqlite:///never-opened.db"))

    async def arrived(self, messages: Sequence[Message]) -> list[Taken]:
        """Wait until all messages have arrived; return everything that has arrived."""
        wanted = {message.id for message in messages}
        while True:
            found = list(await asyncio.to_thread(self.taken))
            if wanted <= {each.id for each in found}:
                return found
            await asyncio.sleep(AGAIN_S)


class Promise(NamedTuple):
    """One promise of a destination; call it with a `World` to check it.

    Args:
        check: The function that checks it.
        is_about_outages: Whether the check needs a `World` that can become unreachable.
    """

    check: Callable[[World], Awaitable[None]]
    is_about_outages: bool

    def __call__(self, world: World) -> None:
        """Check the promise.

        Raises:
            AssertionError: The promise is not kept.
        """
        if not self.is_about_outages or world.away is not None:
            asyncio.run(self._within_a_deadline(world))

    def __str__(self) -> str:
        return self.check.__name__

    async def _within_a_deadline(self, world: World) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self.check(world)
        except TimeoutError:
            raise AssertionError(f"{self}: this did not come true within {DEADLINE_S:g} s") from None


def message(data: Any = None, *, key: str | None = None, headers: Mapping[str, str] | None = None) -> Message:
    """Make a message like those that a relay sends."""
    id_ = str(new_id())
    body = json.dumps({"contentId": id_} if data is None else data)
    return Message(id_, "extraction.completed", "outbox", key, key, body, dict(headers or {}), "2026-01-01 10:00:00+00")


# ------------------------------------------------------------------------------------------------- the promises


PROMISES: list[Promise] = []


def promise(check: Callable[[World], Awaitable[None]]) -> None:
    PROMISES.append(Promise(check, is_about_outages=False))


def promise_about_outages(check: Callable[[World], Awaitable[None]]) -> None:
    PROMISES.append(Promise(check, is_about_outages=True))


@promise
async def its_settings_are_found_by_its_name(world: World) -> None:
    from relay.destinations import registry

    settings = world.settings
    assert settings.kind == world.table["kind"] in registry.names()
    assert isinstance(settings, registry.kind(settings.kind).settings)
    registry.check("tested", settings)
    shown = repr(settings)
    assert not [secret for secret in settings.secrets() if secret in shown], "a secret shows in the settings"


@promise
async def a_setting_that_it_does_not_know_is_refused(world: World) -> None:
    try:
        _ = World({**world.table, "no_such_setting": 1}, world.taken).settings
    except ValueError:
        return
    raise AssertionError("no_such_setting is not refused")


@promise
async def a_message_arrives_with_its_id_and_its_bytes(world: World) -> None:
    sent = message(key="c-1")
    async with world.destination() as destination:
        assert_taken(await destination.send(sent))
    assert await world.arrived([sent]) == [Taken(sent.id, sent.body)]


@promise
async def any_event_can_be_sent(world: World) -> None:
    sent = [message(data, key="schlüssel ✓", headers=ODD_HEADERS) for data in ODD_DATA]
    async with world.destination() as destination:
        for each in sent:
            assert_taken(await destination.send(each))
    assert dict(await world.arrived(sent)) == {each.id: each.body for each in sent}


@promise
async def several_messages_can_be_under_way_at_once(world: World) -> None:
    async with world.destination() as destination:
        sent = [message() for _ in range(min(destination.concurrency, AT_ONCE))]
        for outcome in await asyncio.gather(*map(destination.send, sent)):
            assert_taken(outcome)
    assert dict(await world.arrived(sent)) == {each.id: each.body for each in sent}


@promise
async def messages_sent_one_after_another_arrive_in_that_order(world: World) -> None:
    sent = [message(key="c-1") for _ in range(10)]
    async with world.destination() as destination:
        for each in sent:
            assert_taken(await destination.send(each))
    assert [each.id for each in await world.arrived(sent)] == [each.id for each in sent]


@promise
async def a_message_that_is_sent_again_is_known_by_its_id(world: World) -> None:
    sent = message()
    async with world.destination() as destination:
        for _ in range(2):
            assert_taken(await destination.send(sent))
    assert set(await world.arrived([sent])) == {Taken(sent.id, sent.body)}


@promise
async def an_attempt_that_is_cancelled_does_no_harm_to_the_next(world: World) -> None:
    async with world.destination() as destination:
        assert_taken(await destination.send(message()))
        attempt = asyncio.create_task(_awaited(destination.send(message())))
        await asyncio.sleep(0)
        attempt.cancel()
        await asyncio.gather(attempt, return_exceptions=True)
        sent = message()
        assert_taken(await destination.send(sent))
    await world.arrived([sent])


@promise
async def a_batch_arrives_in_order_with_an_outcome_for_each_message(world: World) -> None:
    from relay.destinations.contract import BatchDestination

    async with world.destination() as destination:
        if not isinstance(destination, BatchDestination) or destination.batch_size < 2:
            return
        sent = [message(key=f"c-{n}") for n in range(min(destination.batch_size, AT_ONCE))]
        assert all(map(destination.may_share, sent)), "a plain message may not go in a batch"
        for outcome in each_of(await destination.send_many(sent), sent):
            assert_taken(outcome)
    assert dict(await world.arrived(sent)) == {each.id: each.body for each in sent}


@promise
async def a_probe_says_that_all_is_well_and_sends_nothing(world: World) -> None:
    from relay.destinations import registry

    probed = await registry.kind(world.settings.kind).probe("tested", world.settings)
    assert probed.well, probed.said
    assert probed.said
    assert probed.checked
    assert list(await asyncio.to_thread(world.taken)) == []


@promise
async def it_can_be_closed_at_any_time(world: World) -> None:
    await world.build().close()
    destination = world.build()
    await destination.start()
    await destination.close()
    await destination.close()


# ------------------------------------------------------------------------------------------------- and in an outage


@promise_about_outages
async def an_outage_is_the_fault_of_no_message(world: World) -> None:
    async with world.destination() as destination:
        assert_taken(await destination.send(message()))
        async with away(world):
            await until(lambda: destination.send(message()), lambda outcome: outcome.kind in OUTAGE)
            for _ in range(3):
                assert_outage(await destination.send(message()), world)


@promise_about_outages
async def it_recovers_from_an_outage_by_itself(world: World) -> None:
    sent = message()
    async with world.destination() as destination:
        async with away(world):
            await destination.send(sent)
        await until(lambda: destination.send(sent), lambda outcome: outcome.kind == "taken")
    assert set(await world.arrived([sent])) == {Taken(sent.id, sent.body)}


@promise_about_outages
async def it_starts_while_the_other_side_is_away(world: World) -> None:
    sent = message()
    async with away(world):
        destination = world.build()
        await destination.start()
        assert_outage(await destination.send(sent), world)
    try:
        await until(lambda: destination.send(sent), lambda outcome: outcome.kind == "taken")
    finally:
        await destination.close()


@promise_about_outages
async def a_batch_in_an_outage_condemns_no_message(world: World) -> None:
    from relay.destinations.contract import BatchDestination

    async with away(world), world.destination() as destination:
        if not isinstance(destination, BatchDestination) or destination.batch_size < 2:
            return
        sent = [message() for _ in range(2)]
        for outcome in each_of(await destination.send_many(sent), sent):
            assert_outage(outcome, world)


@promise_about_outages
async def a_probe_says_that_the_other_side_is_away(world: World) -> None:
    from relay.admin.destinations.probe import probe
    from relay.settings import Settings

    async with away(world):
        probed = await probe("tested", Settings(destinations={"tested": world.settings}))
    assert not probed.well
    assert probed.said


# ------------------------------------------------------------------------------------------------- how they look


def assert_taken(outcome: Outcome) -> None:
    assert outcome.kind == "taken", f"not taken, but {outcome}"


def assert_outage(outcome: Outcome, world: World) -> None:
    """Assert that the outcome charges no message, and gives its reason in one line without a secret."""
    assert outcome.kind in OUTAGE, f"an outage is {' or '.join(OUTAGE)}, and this was {outcome}"
    assert outcome.reason
    assert "\n" not in outcome.reason, outcome.reason
    shown = outcome.reason + outcome.detail
    assert not [secret for secret in world.settings.secrets() if secret in shown], "a secret shows in a reason"


def each_of(outcome: Outcome | Sequence[Outcome], messages: Sequence[Message]) -> list[Outcome]:
    """Return the outcome of each message of a batch."""
    if not isinstance(outcome, Sequence):
        return [outcome] * len(messages)
    assert len(outcome) == len(messages), f"{len(outcome)} outcomes for {len(messages)} messages"
    return list(outcome)


@asynccontextmanager
async def away(world: World) -> AsyncIterator[None]:
    """Keep the other side unreachable while this context is open."""
    assert world.away is not None
    gone = world.away()
    await asyncio.to_thread(gone.__enter__)
    try:
        yield
    finally:
        await asyncio.to_thread(gone.__exit__, None, None, None)


async def until(attempt: Callable[[], Awaitable[Outcome]], is_so: Callable[[Outcome], bool]) -> None:
    """Repeat an attempt until its outcome satisfies ``is_so``."""
    while True:
        if is_so(await attempt()):
            return
        await asyncio.sleep(AGAIN_S)


async def _awaited(attempt: Awaitable[Outcome]) -> Outcome:
    return await attempt
