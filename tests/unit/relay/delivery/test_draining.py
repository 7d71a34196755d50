from itertools import count
from types import SimpleNamespace
from typing import Any

from relay import Settings
from relay.delivery.draining import Drain, Drained
from relay.owner.outage import Outage

REFUSED = ConnectionError("the database refused it")


class Owner:
    """An owning thread that changes with the time: `at` says what happens at which second."""

    def __init__(self, at: dict[int, Any]) -> None:
        self.outage, self.caught_up, self.at = Outage(), False, at
        self.now = count()

    def clock(self) -> float:
        now = next(self.now)
        self.at.get(now, lambda: None)()
        return now

    def work(self) -> None:
        self.outage.end()
        self.caught_up = True

    def fail(self) -> None:
        self.outage.add(REFUSED, owned=0)


async def drain(at: dict[int, str]) -> Drained:
    """Drain with a database for which a relay waits five seconds."""
    owner = Owner({})
    owner.at = {second: getattr(owner, what) for second, what in at.items()}
    completion = SimpleNamespace(delivered_count=0, is_settling=False)
    dispatcher: Any = SimpleNamespace(
        completion=completion, partly_delivered_count=0, lanes={}, crash_guard=SimpleNamespace(hurry=lambda: None)
    )
    heard: Any = None
    settings = Settings(database_url="sqlite:///none.db", beat_s=2)
    return await Drain(owner, dispatcher, heard, settings, owner.clock).run(lambda: False, look=False)


async def test_a_drain_waits_for_a_first_session_however_long_it_takes_to_open() -> None:
    assert (await drain({60: "work"})).reason is None


async def test_a_drain_waits_for_an_attempt_that_began_while_there_was_time() -> None:
    assert (await drain({2: "fail", 4: "fail", 60: "work"})).reason is None


async def test_a_drain_ends_with_the_reason_when_an_attempt_has_failed_after_the_time() -> None:
    assert (await drain({2: "fail", 20: "fail", 60: "work"})).reason == str(REFUSED)
