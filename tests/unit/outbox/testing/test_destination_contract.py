"""The contract of destinations notices a kind that breaks a promise."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from outbox.testing import destination_contract
from outbox.testing.destination_contract import PROMISES, Promise, Taken, World
from relay.destinations import registry

FLAWED = '''
"""A kind that breaks the promise that its settings name, and keeps all others."""
import asyncio
import json
from typing import Literal

from pydantic import ConfigDict, SecretStr

from relay.decide.outcome import TAKEN, failed, unreachable
from relay.destinations.kind import Kind, Probed
from relay.destinations.policy import DestinationPolicy

ARRIVED, STATE = [], {"is_away": False}

class FlawedSettings(DestinationPolicy):
    kind: Literal["flawed"] = "flawed"
    flaw: str = ""
    password: SecretStr = SecretStr("the-password")

    def secrets(self):
        return {self.password.get_secret_value()}

class LaxSettings(FlawedSettings):
    model_config = ConfigDict(extra="ignore")

class FlawedDestination:
    concurrency = 8
    batch_size = 8

    def __init__(self, name, settings):
        self.name, self._flaw, self._is_broken, self._was_closed = name, settings.flaw, False, False
        self._under_way = 0

    async def start(self):
        if self._flaw == "needs the other side to start" and STATE["is_away"]:
            raise ConnectionError

    async def send(self, message):
        self._under_way += 1
        try:
            await asyncio.sleep(0)
            return self._sent(message, self._under_way)
        except asyncio.CancelledError:
            self._is_broken = self._flaw == "breaks when cancelled"
            raise
        finally:
            self._under_way -= 1

    def _sent(self, message, under_way):
        if STATE["is_away"] or self._is_broken:
            self._is_broken = self._is_broken or self._flaw == "never recovers"
            if self._flaw == "raises in an outage":
                raise ConnectionError
            if self._flaw == "charges for an outage":
                return failed("away")
            return unreachable("the-password is wrong" if self._flaw == "tells its password" else "away")
        if self._flaw == "takes one at a time" and under_way > 1:
            return failed("one at a time")
        id_ = message.id
        if self._flaw == "forgets ids" or (self._flaw == "another id each time" and id_ in dict(ARRIVED)):
            id_ = str(len(ARRIVED))
        body = json.dumps(message.data, ensure_ascii=False).encode() if self._flaw == "changes bytes" else message.body
        if self._flaw == "turns the order round":
            ARRIVED.insert(0, (id_, body))
        else:
            ARRIVED.append((id_, body))
        return TAKEN

    def may_share(self, message):
        return True

    async def send_many(self, messages):
        if STATE["is_away"]:
            return failed("away") if self._flaw == "charges a batch for an outage" else [unreachable("away")] * 2
        outcomes = [self._sent(message, 1) for message in messages]
        return outcomes[:-1] if self._flaw == "forgets an outcome" else outcomes

    async def close(self):
        if self._was_closed and self._flaw == "closes once":
            raise RuntimeError("closed twice")
        self._was_closed = True

async def probe(name, settings):
    if settings.flaw == "probes with a message":
        ARRIVED.append(("probe", b""))
    return Probed(not STATE["is_away"] or settings.flaw == "always well", "it is", "nothing")

KIND = Kind(name="flawed", settings=LaxSettings if {lax} else FlawedSettings, probe=probe,
            build=lambda name, settings, database: FlawedDestination(name, settings))
'''

FLAWS = {
    "needs the other side to start": "it_starts_while_the_other_side_is_away",
    "breaks when cancelled": "an_attempt_that_is_cancelled_does_no_harm_to_the_next",
    "never recovers": "it_recovers_from_an_outage_by_itself",
    "raises in an outage": "an_outage_is_the_fault_of_no_message",
    "charges for an outage": "an_outage_is_the_fault_of_no_message",
    "tells its password": "an_outage_is_the_fault_of_no_message",
    "takes one at a time": "several_messages_can_be_under_way_at_once",
    "forgets ids": "a_message_arrives_with_its_id_and_its_bytes",
    "another id each time": "a_message_that_is_sent_again_is_known_by_its_id",
    "changes bytes": "any_event_can_be_sent",
    "turns the order round": "messages_sent_one_after_another_arrive_in_that_order",
    "charges a batch for an outage": "a_batch_in_an_outage_condemns_no_message",
    "forgets an outcome": "a_batch_arrives_in_order_with_an_outcome_for_each_message",
    "closes once": "it_can_be_closed_at_any_time",
    "probes with a message": "a_probe_says_that_all_is_well_and_sends_nothing",
    "always well": "a_probe_says_that_the_other_side_is_away",
    "ignores settings": "a_setting_that_it_does_not_know_is_refused",
    "is another kind": "its_settings_are_found_by_its_name",
}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The flawed kind, as an installed package."""
    info = tmp_path / "flawed-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: flawed\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\nflawed = flawed_kind:KIND\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.kind.cache_clear()
    registry._theirs.cache_clear()
    yield
    registry.kind.cache_clear()
    registry._theirs.cache_clear()


def world(folder: Path, flaw: str = "") -> World:
    sys.modules.pop("flawed_kind", None)
    lax = flaw == "ignores settings"
    (folder / "flawed_kind.py").write_text(FLAWED.replace("{lax}", str(lax)))
    import flawed_kind  # type: ignore[import-not-found]

    @contextmanager
    def away() -> Iterator[None]:
        flawed_kind.STATE["is_away"] = True
        yield
        flawed_kind.STATE["is_away"] = False

    if flaw == "is another kind":
        object.__setattr__(flawed_kind.KIND, "build", _refuses)
    return World(
        {"kind": "flawed", "flaw": flaw}, taken=lambda: [Taken(*each) for each in flawed_kind.ARRIVED], away=away
    )


def _refuses(name: str, settings: object, database: object) -> None:
    raise AssertionError("it cannot be built")


@pytest.mark.usefixtures("install")
@pytest.mark.parametrize("promise", PROMISES, ids=str)
def test_a_kind_without_a_flaw_keeps_every_promise(tmp_path: Path, promise: Promise) -> None:
    promise(world(tmp_path))


@pytest.mark.usefixtures("install")
@pytest.mark.parametrize("flaw", FLAWS)
def test_a_kind_with_a_flaw_breaks_a_promise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flaw: str) -> None:
    monkeypatch.setattr(destination_contract.promise, "DEADLINE_S", 0.3)  # for flaws that never let it end
    (promise,) = (each for each in PROMISES if str(each) == FLAWS[flaw])
    flawed = world(tmp_path, flaw)
    with pytest.raises((AssertionError, ConnectionError, RuntimeError)):
        promise(flawed)


def test_every_promise_has_a_flaw_that_breaks_it() -> None:
    assert {str(each) for each in PROMISES} == set(FLAWS.values())
