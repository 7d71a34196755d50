"""The guarantees as a plain-Python model: what was committed, what was sent, taken, given up, and in which order.

A `Ledger` is told what a test does and what its destinations see. It knows nothing of shards, cursors, sessions or
states; it says what must not have happened. The numbers are those of the guarantees.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Literal

from support.databases import Database

WANTS = {"a": ("page.read", "audit.kept"), "b": ("page.read",)}
SKIPPING = ("b",)
MAX_ATTEMPTS = 2

Expiry = Literal["never", "ahead", "passed", "passed before it was written"]


@dataclass
class Letter:
    """One message. Times are numbers of events in the order in which they happened."""

    id: str
    type: str
    key: str | None
    n: int
    emitted_at: int
    wanted: set[str]
    committed_at: int | None = None
    is_scheduled: bool = False
    expiry: Expiry = "never"
    body: bytes | None = None
    replayed_at: dict[str, int] = field(default_factory=dict)  # destination → the last time
    is_forgotten: bool = False  # by retention

    @property
    def has_expired(self) -> bool:
        """Whether no relay has to send it any more, unless an operator has sent it again."""
        return self.expiry.startswith("passed")


@dataclass
class Fate:
    """What became of one message at one destination."""

    acknowledged_at: int = -1  # when the last attempt began that its relay saw taken
    failures: int = 0  # outcomes that might have been charged
    refusals: int = 0
    discarded: bool = False


@dataclass
class Attempt:
    """One message under way."""

    relay: Any
    destination: str
    id: str
    key: str | None
    began_at: int
    cut_count: int
    outcome: Any

    @property
    def is_stale(self) -> bool:
        """Whether its relay has died or lost its session since, and so no longer owns this."""
        return not self.relay.is_alive or self.relay.store.cut_count != self.cut_count


class Ledger:
    """What happened, and what is wrong with it."""

    def __init__(self, lease_s: float) -> None:
        self.lease_s = lease_s
        self.now = 0
        self.letters: dict[str, Letter] = {}
        self.fates: defaultdict[tuple[str, str], Fate] = defaultdict(Fate)
        self.under_way: list[Attempt] = []
        self.effects: defaultdict[str, int] = defaultdict(int)
        self.wrong: list[str] = []

    def tick(self) -> int:
        self.now += 1
        return self.now

    def committed(self) -> dict[str, Letter]:
        return {each.id: each for each in self.letters.values() if each.committed_at is not None}

    # ------------------------------------------------------------ what is sent

    def begin(self, attempt: Attempt, body: bytes, clock: float) -> None:
        """Begin an attempt, and check that it may begin."""
        letter = self.letters.get(attempt.id)
        if letter is None or letter.committed_at is None:
            self.wrong.append(f"3 ghost: {attempt.id} was never committed, and was sent")
            return
        name = f"{letter.n} ({letter.key}) to {attempt.destination}"
        if letter.body not in (None, body):
            self.wrong.append(f"8 {name} was sent as {body!r} after {letter.body!r}")
        letter.body = body
        if letter.expiry == "passed before it was written" and attempt.destination not in letter.replayed_at:
            self.wrong.append(f"{name} was sent although its time had passed before it was written")
        if clock - attempt.relay.store.asked_at >= self.lease_s / 3:
            self.wrong.append(f"4 {name} was sent by a relay that cannot know whether it owns it")
        if attempt.destination in attempt.relay.knows_paused and attempt.destination in attempt.relay.store.saw_paused:
            self.wrong.append(f"{name} was sent although its relay knew of the pause")
        for other in self.under_way:
            if other.destination == attempt.destination and not other.is_stale and not attempt.is_stale:
                if other.id == attempt.id:
                    self.wrong.append(f"4 {name} is under way twice")
                elif letter.key is not None and other.key == letter.key:
                    self.wrong.append(f"5 {name} was sent while another of its key is under way")
        for before in self._predecessors(letter, attempt.destination):
            self.wrong.append(f"5 {name} was sent before {before.n}")
        self.under_way.append(attempt)

    def _predecessors(self, letter: Letter, destination: str) -> list[Letter]:
        """Return its predecessors in its key that are not done there."""
        return [
            each
            for each in self.letters.values()
            if letter.key is not None
            and each.key == letter.key
            and not each.is_scheduled
            and not letter.is_scheduled
            and destination in each.wanted
            and each.committed_at is not None
            and each.committed_at < letter.emitted_at
            and not each.has_expired
            and not self._may_be_passed(self.fates[each.id, destination], destination)
        ]

    def _may_be_passed(self, fate: Fate, destination: str) -> bool:
        if fate.acknowledged_at >= 0 or fate.discarded:
            return True
        return destination in SKIPPING and (fate.refusals > 0 or fate.failures >= MAX_ATTEMPTS)

    def end(self, attempt: Attempt, kind: str) -> None:
        """End an attempt, with its outcome as its relay knows it."""
        fate = self.fates[attempt.id, attempt.destination]
        if kind == "taken":
            fate.acknowledged_at = max(fate.acknowledged_at, attempt.began_at)
        elif kind in ("failed", "refused", "busy"):
            fate.failures += 1
            fate.refusals += kind == "refused"

    # -------------------------------------------------------- what is in the tables

    def check(self, database: Database) -> None:
        """Compare with the tables; raise an error about what is wrong."""
        with database.engine.connect() as connection:
            waiting = {
                str(r.id): r
                for r in connection.exec_driver_sql("SELECT id, state, generation FROM outbox_message").all()
            }
            deliveries: defaultdict[str, dict[str, Any]] = defaultdict(dict)
            for row in connection.exec_driver_sql(
                "SELECT message_id, destination, state, attempts FROM outbox_delivery"
            ):
                deliveries[str(row.message_id)][row.destination] = row
            history = defaultdict(list)
            for row in connection.exec_driver_sql("SELECT id, attempts, deliveries, outcome FROM outbox_history"):
                history[str(row.id)].append(row)
        committed = self.committed()
        for id_ in (waiting.keys() | history.keys() | deliveries.keys()) - committed.keys():
            self.wrong.append(f"3 ghost: {id_} is in the tables and was never committed")
        for id_ in deliveries.keys() - waiting.keys():
            self.wrong.append(f"1 {id_} has deliveries {deliveries[id_]} and is not waiting")
        for letter in committed.values():
            self._check_letter(letter, waiting.get(letter.id), deliveries[letter.id], history[letter.id])
        for id_, count in self.effects.items():
            if count > 1:
                self.wrong.append(f"7 {id_} took effect {count} times")
        assert not self.wrong, "\n".join(self.wrong)

    def _check_letter(self, letter: Letter, row: Any, deliveries: dict[str, Any], history: list[Any]) -> None:
        name = f"1 {letter.n} ({letter.key}, {letter.type})"
        if row is None and not history and not letter.is_forgotten:
            self.wrong.append(f"{name} is gone")
        elif row is not None and (history or letter.is_forgotten) and not letter.replayed_at:
            self.wrong.append(f"{name} waits and is history")
        elif row is None and (history or letter.is_forgotten):
            self._check_done(name, letter)
            if any(each.outcome == "expired" for each in history) and not letter.has_expired:
                self.wrong.append(f"{name} is history as expired, and its time had not passed")
        elif row is not None and row.state == "held":
            self._check_held(name, letter, deliveries)

    def _check_done(self, name: str, letter: Letter) -> None:
        for destination in letter.wanted | letter.replayed_at.keys():
            fate = self.fates[letter.id, destination]
            is_excused = fate.discarded or (letter.has_expired and destination not in letter.replayed_at)
            if not is_excused and fate.acknowledged_at < letter.replayed_at.get(destination, 0):
                self.wrong.append(f"{name} is history, and {destination} never took it")

    def _check_held(self, name: str, letter: Letter, deliveries: dict[str, Any]) -> None:
        if not letter.replayed_at and not letter.wanted <= deliveries.keys():
            self.wrong.append(f"{name} is held without {letter.wanted - deliveries.keys()}")
        if letter.replayed_at and not deliveries:
            self.wrong.append(f"{name} is held with nothing to wait for")
        for destination, row in deliveries.items():
            fate = self.fates[letter.id, destination]
            if row.state == "delivered" and fate.acknowledged_at < 0:
                self.wrong.append(f"{name} counts as delivered to {destination}, which never took it")
            if row.state == "dead" and not (fate.refusals or fate.failures >= MAX_ATTEMPTS):
                self.wrong.append(f"{name} is dead at {destination} after {fate.failures} failures")
            if row.attempts > fate.failures:
                self.wrong.append(f"{name} was charged {row.attempts} attempts after {fate.failures} failures")
            if row.state == "expired" and not letter.has_expired:
                self.wrong.append(f"{name} expired at {destination}, and its time had not passed")
            if row.state in ("discarded", "cancelled") and not (fate.discarded or destination == "nobody"):
                self.wrong.append(f"{name} is {row.state} at {destination}, without an operator's action")

    def check_all_done(self) -> None:
        """Check that every message was taken, or given up by an operator."""
        for letter in self.committed().values():
            for destination in letter.wanted:
                fate = self.fates[letter.id, destination]
                if fate.acknowledged_at < 0 and not (fate.discarded or letter.has_expired):
                    self.wrong.append(f"2 {letter.n} never reached {destination}")
                if destination == "b" and fate.acknowledged_at >= 0 and self.effects[letter.id] != 1:
                    self.wrong.append(f"7 {letter.n} took effect {self.effects[letter.id]} times")
        assert not self.wrong, "\n".join(self.wrong)


def number_of(body: bytes) -> int:
    return int(json.loads(body)["n"])
