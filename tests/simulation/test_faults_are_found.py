"""Puts back faults that once stopped a destination or a key: each breaks a life, with the seed named here.

| fault                                                                        | script, seed           |
|------------------------------------------------------------------------------|------------------------|
| a batch leaves "under way" before it is ruled on, and chains go without it   | throttled batches, 0   |
| what was set aside holds up what comes before it in its key                  | hot key, 1             |
| what waits under suspicion takes the room of what was not tried              | poison chain, 1        |
| a release that was missed has no second chance                               | missed releases, 0     |
| taking shards looks at all that is blocked there, before anything else       | takeover, 0            |
| a failing message is taken back at once, while another attempt is under way  | few failing, 0         |
| a worker that dies is noticed by no part of the relay                        | throttled batches, 0   |
| what destinations that take nothing keep fills the window                    | narrow window, 2       |
| probes are made at the oldest and the newest messages only                   | hidden, 0              |
| a probe is one attempt                                                       | crowd in front, 1      |
| no new message with a key is a probe of a destination that is down           | keys behind a crowd, 0 |
| what was tried and found no room is the next to be read again                | behind the tried, 0    |
| a destination that is down reads what waits for it in its order              | crowd in front, 0      |
| a message expires while its attempt is being noted, and is sent              | noted too long, 1      |

The simulation does not model two more faults, which have tests with real servers: transactions that logical
replication applies (tests/integration/test_logical_replication.py), and sessions of listeners that deadlock
(tests/contract/test_listener_transactions.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from simulation.life import Life, Violation
from simulation.scripts import DIRECTED
from simulation.session import ModelSession

from relay.databases.store.inheriting import Inherited
from relay.databases.store.rows import Cursors
from relay.decide.breaker import CircuitBreaker
from relay.decide.failures.doubt import NEWEST
from relay.delivery.chains import HeldKeys, SetBack
from relay.delivery.crashes.guard import CrashGuard
from relay.delivery.lane import Lane
from relay.delivery.queue import RESERVE, DeliveryQueue
from relay.owner.reader import Reader
from relay.seam.supervision import Supervisor

ROW_S = 0.2  # the time to look at one blocked delivery, scaled to the small number here


def dies(script: str, seed: int) -> str:
    """Run a life that must end with a violation; return the violation."""
    with pytest.raises(Violation) as found:
        Life(seed, DIRECTED[script](seed)).run()
    return str(found.value)


def test_batches_that_lose_their_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    _lose_chains(monkeypatch)
    dies("throttled batches", 0)


def _lose_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    finish_batch, evict = Lane.finish_batch, DeliveryQueue.evict

    def leave_first(self: Lane, batch: Sequence[Any], outcomes: Any, started_at: float) -> None:
        kept = {entry: self.queue.under_way.pop(entry) for entry in batch}
        self._shrink()
        self.queue.under_way.update(kept)
        finish_batch(self, batch, outcomes, started_at)

    def drop_chains(self: DeliveryQueue, belongs: Callable[..., bool]) -> Any:
        gone = evict(self, belongs)
        heads = {*self.startable, *self.under_way.values(), *self.suspects}
        for chain in [chain for chain in self.chains if chain.head not in heads]:
            self.chains.end(chain.head.key or "")
        return gone

    monkeypatch.setattr(Lane, "finish_batch", leave_first)
    monkeypatch.setattr(Lane, "_shrink", lambda self: self.park(lambda entry: True))
    monkeypatch.setattr(DeliveryQueue, "evict", drop_chains)


def test_a_worker_that_dies_unnoticed(monkeypatch: pytest.MonkeyPatch) -> None:
    _lose_chains(monkeypatch)
    monkeypatch.setattr(Supervisor, "_fail", lambda *_: None)
    monkeypatch.setattr("simulation.life.check_relay", lambda _: iter(()))
    dies("throttled batches", 0)


def test_keys_that_are_held_without_a_position(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HeldKeys, "is_before", lambda self, key, position: key in self._present)
    assert "hot" in dies("hot key", 1)


def test_suspects_that_take_the_room_of_what_was_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SetBack, "add", lambda *_: None)
    assert "liveness" in dies("poison chain", 1)


def test_destinations_that_take_nothing_and_fill_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DeliveryQueue, "reserve", RESERVE)
    assert "c would take" in dies("narrow window", 2)


def test_probes_at_the_oldest_and_the_newest_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.delivery.lane.place_in_doubt", lambda attempt: NEWEST if attempt % 2 else None)
    assert "a would take 40" in dies("hidden", 0)


def test_probes_that_are_one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.decide.breaker.PROBE_WITH", 1)
    assert "a would take 60" in dies("crowd in front", 1)


def test_tried_messages_without_room_that_are_the_next_to_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cursors, "pass_by", Cursors.lower)
    assert "a would take 60" in dies("behind the tried", 0)


def test_parked_messages_that_are_probes_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reader, "_read_further_on", lambda *_: [])
    assert "a would take 60" in dies("crowd in front", 0)


def test_messages_that_expire_while_they_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CrashGuard, "_may_still_start", lambda self, *_: self._lease.is_held(self._clock()))
    assert "expired" in dies("noted too long", 1)


def test_new_messages_with_keys_that_are_no_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lane, "_may_probe", lambda _, entry: entry.key is None)
    assert "a would take 120" in dies("keys behind a crowd", 0)


def test_a_release_that_has_no_second_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulation.life.SETTLED_S", 1e9)
    assert "behind nothing" in dies("missed releases", 0)


def test_a_takeover_that_looks_at_everything_first(monkeypatch: pytest.MonkeyPatch) -> None:
    take = ModelSession.take

    def look_at_everything(self: ModelSession, shards: Sequence[int]) -> list[Inherited]:
        inherited = take(self, shards)
        taken = {each.shard for each in inherited}
        blocked = [d for d in self.tables.deliveries.values() if d.message.shard in taken and d.state == "blocked"]
        self.tables.clock.now += ROW_S * len(blocked)  # type: ignore[attr-defined]
        return inherited

    monkeypatch.setattr(ModelSession, "take", look_at_everything)
    assert "liveness" in dies("takeover", 0)


def test_failing_messages_that_are_taken_back_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    suspect = CircuitBreaker._suspect

    def without_a_wait(self: Any, delivery: Any, outcome: Any, earlier: Any, now: float) -> Any:
        ruling = suspect(self, delivery, outcome, earlier, now)
        for each in self.suspects.waiting.values():
            each.retry_at = now
        return ruling

    monkeypatch.setattr(CircuitBreaker, "_suspect", without_a_wait)
    assert "hammering" in dies("few failing", 0)
