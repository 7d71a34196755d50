"""An owning session on the model of the tables. It keeps its locks until it is closed or cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from simulation.store import DONE, Delivery, Message, Tables

import outbox
from relay.databases.schema import SCHEMA_VERSION
from relay.databases.store.contract import Lost
from relay.databases.store.inheriting import Inherited
from relay.databases.store.records import Batch, Peers, Ruled, Swept
from relay.databases.store.rows import Cursors, Page, Pair, Parked, Row
from relay.decide.failures.crashes import Record
from relay.decide.rate import Rate
from relay.decide.shared_state import DISPUTED_S, PROBE_LEASE_S, Finding, SharedState

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
SLICE = 20  # deliveries looked at in one sweep


class ModelSession:
    """One session.

    Args:
        tables: What it works on.
        relay_id: Whose it is.
        chance: Decides what a database leaves to chance.
        settled_s: How long a blocked delivery is left alone by the sweep.
        miss: How likely it is that a release misses what another session is just blocking (write skew), 0 to 1.
    """

    def __init__(self, tables: Tables, relay_id: str, chance: Random, *, settled_s: float, miss: float) -> None:
        self.tables, self.relay_id, self.chance = tables, relay_id, chance
        self.settled_s, self.miss = settled_s, miss
        self.unreadable: dict[str, str] = {}
        self.given_up: Counter[tuple[str, str]] = Counter()
        self.is_cut = False
        tables.sessions += 1
        self.number = tables.sessions
        tables.wants_of[self.number] = 0
        self._seen = tables.tx
        self._handed_out: set[tuple[str, str, int, float]] = set()
        self.ownership = self.reading = self.settling = self.waking = self

    # ---------------------------------------------------------------- life

    def cut(self) -> None:
        """Break the connection: the server releases everything."""
        self.is_cut = True
        self.tables.wants_of.pop(self.number, None)
        for shard in self.tables.shards:
            if shard.holder is self:
                shard.holder = None

    close = cut

    def _check(self) -> None:
        if self.is_cut:
            raise Lost("the session was cut")

    def server_age_s(self) -> float:
        return 1e6

    def beat(self, shards: Sequence[int], wants: int) -> Peers:
        self._check()
        self.tables.wants_of[self.number] = wants
        held = frozenset(n for n, shard in enumerate(self.tables.shards) if shard.holder is not None)
        shared_states = {name: self.tables.shared_state(name) for name in self.tables.destinations}
        return Peers(
            self.number,
            dict(self.tables.wants_of),
            held,
            1,
            shared_states,
            (),
            (SCHEMA_VERSION, outbox.__version__),
            clock_s=_instant(self.tables.clock()).timestamp(),
        )

    def take(self, shards: Sequence[int]) -> list[Inherited]:
        self._check()
        taken, now = [s for s in shards if self.tables.shards[s].holder is None], _instant(self.tables.clock())
        inherited = []
        for s in taken:
            shard = self.tables.shards[s]
            ids = Record.parse(shard.started).ids
            was_mine = shard.dirty and shard.owner == self.relay_id
            inherited.append(
                Inherited(
                    shard=s,
                    owner=shard.owner,
                    was_mine=was_mine,
                    is_dirty=shard.dirty and not was_mine,
                    record=shard.started,
                    present=frozenset(ids & self.tables.messages.keys()),
                    at=now,
                )
            )
            shard.holder, shard.dirty, shard.owner = self, True, self.relay_id
        return inherited

    def note(self, records: Mapping[int, str | None]) -> None:
        self._check()
        for s, record in records.items():
            if self.tables.shards[s].owner == self.relay_id:
                self.tables.shards[s].started = record

    def give(self, shards: Sequence[int]) -> None:
        self._check()
        for s in shards:
            shard = self.tables.shards[s]
            shard.dirty, shard.owner, shard.holder = False, None, None

    # ------------------------------------------------------------- reading

    def read_ready(self, cursors: Cursors, limit: int, meanwhile: Callable[[], None] | None = None) -> Page:
        self._check()
        page, t = Page(), self.tables
        mine = [m for m in t.messages.values() if m.state == "ready" and m.shard in cursors.ready]
        is_changed = t.tx > self._seen
        late = [m for m in mine if m.tx > self._seen and m.position <= cursors.ready[m.shard]] if is_changed else []
        page.messages = [_row(m) for m in sorted(late, key=_position)]
        changed = t.deliveries.values() if is_changed else ()
        for d in [d for d in changed if d.tx > self._seen and d.message.shard in cursors.ready]:
            if d.state == "discarded":
                page.discarded.append((d.message.id, d.destination))
            elif d.state == "parked" and d.by is not self:
                page.unparked.add(d.destination)
                cursors.lower(d.destination, d.message.shard, d.message.position)
        self._seen = t.tx
        ahead = sorted((m for m in mine if m.position > cursors.ready[m.shard]), key=_position)
        for m in ahead[: max(limit, 0)]:
            cursors.ready[m.shard] = m.position
            page.messages.append(_row(m))
        if limit > 0:
            cursors.exhausted |= cursors.ready.keys() - {m.shard for m in ahead[limit:]}
            page.full = bool(ahead)
        return page

    def read_parked(self, cursors: Cursors, destinations: Sequence[str], limit: int) -> list[Row]:
        self._check()
        found = []
        for d in self.tables.deliveries.values():
            if d.state != "parked" or d.destination not in destinations or d.message.shard not in cursors.ready:
                continue
            pair = d.destination, d.message.shard
            if cursors.parked.get(pair, 0) < d.message.position <= cursors.parked_until(d.message.shard):
                found.append(d)
        found.sort(key=lambda d: d.message.position)
        for d in found[:limit]:
            cursors.parked[d.destination, d.message.shard] = d.message.position
        return [self._delivery_row(d) for d in found[:limit]]

    def read_due(self, shards: Sequence[int], limit: int) -> Page:
        self._check()
        now, page = self.tables.clock(), Page()
        for m in self.tables.messages.values():
            if m.state == "scheduled" and m.due_at <= now and m.shard in shards and self._is_new(m, "", m.generation):
                page.messages.append(_row(m))
        for d in self.tables.deliveries.values():
            is_due = d.state == "retry" and d.due_at <= now and d.message.shard in shards
            if is_due and self._is_new(d.message, d.destination, d.generation, d.due_at):
                page.deliveries.append(self._delivery_row(d))
        return page

    def _is_new(self, message: Message, destination: str, generation: int, due_at: float = 0.0) -> bool:
        what = message.id, destination, generation, due_at
        is_new = what not in self._handed_out
        self._handed_out.add(what)
        return is_new

    def reread_due(self) -> None:
        self._handed_out.clear()

    def held_keys(self, keys: Sequence[str], destinations: Sequence[str]) -> dict[Pair, int]:
        self._check()
        return self._lowest({(d, k) for d in destinations for k in keys}, self.tables.holds_up)

    def blocked_keys(self, pairs: Collection[Pair]) -> dict[Pair, int]:
        self._check()
        return self._lowest(set(pairs), lambda d: d.state != "parked" and self.tables.holds_up(d))

    def _lowest(self, pairs: set[Pair], counts: Callable[[Delivery], bool]) -> dict[Pair, int]:
        found: dict[Pair, int] = {}
        for d in self.tables.deliveries.values():
            pair = d.destination, d.message.key or ""
            if d.message.key is not None and pair in pairs and counts(d):
                found[pair] = min(found.get(pair, d.message.position), d.message.position)
        return found

    def sweep(self, at: int, shards: Sequence[int], fresh: Collection[int]) -> Swept:
        self._check()
        t, now = self.tables, self.tables.clock()
        rest = sorted(
            (d for d in t.deliveries.values() if d.message.shard in shards and d.message.position > at),
            key=lambda d: d.message.position,
        )
        parked: list[Parked] = []
        discarded = []
        for d in rest[:SLICE]:
            is_settled = d.message.shard in fresh or now - d.changed_at > self.settled_s
            if d.state == "blocked" and is_settled and not self._has_predecessor(d):
                t.change(d, "parked", self)
                parked.append((d.destination, d.message.shard, d.message.position))
            if d.state == "discarded" and all(s.state in DONE for s in t.of_message(d.message.id)):
                discarded.append((d.message.id, d.destination))
        next_at = rest[SLICE - 1].message.position - 1 if len(rest) > SLICE else None
        if next_at is not None and next_at <= at:
            next_at = at + 1
        return Swept(next_at, parked, discarded, any(t.holds_up(d) and d.message.key for d in rest))

    def _has_predecessor(self, d: Delivery) -> bool:
        rows = self.tables.of_key(d.destination, d.message.key)
        return any(each.message.position < d.message.position and self.tables.holds_up(each) for each in rows)

    def _delivery_row(self, d: Delivery) -> Row:
        failing_s = self.tables.clock() - d.first_failed_at if d.first_failed_at is not None else 0.0
        return (*_row(d.message), d.destination, d.generation, d.attempts, failing_s)

    # ------------------------------------------------------------ settling

    def settle_plain(self, rows: Sequence[Row], *, durable: bool = True) -> Callable[[], int]:
        self._check()
        done = []
        for row in rows:
            m = self.tables.messages.get(row[0])
            if m is not None and m.generation == row[3] and m.state != "held":
                done.append(m.id)
                del self.tables.messages[m.id]
                self.tables.history.add(m.id)
        return lambda: len(done)

    def settle(self, batch: Batch, *, durable: bool = True) -> list[Parked]:
        self._check()
        t = self.tables
        generation_of: dict[str, int | None] = {r.message_id: None for r in batch.ruled}
        generation_of.update(batch.messages)
        known = {id_ for id_, g in generation_of.items() if self._is_current(id_, g)}
        parked: list[Parked] = []
        for r in [r for r in batch.ruled if r.message_id in known]:
            parked += self._write(r)
        for id_ in known:
            t.messages[id_].state = "held"
        finished = [
            (r.destination, t.messages[r.message_id].key)
            for r in batch.ruled
            if r.message_id in known
            and (
                r.state in ("delivered", "expired")
                or (r.state == "blocked" and not r.behind_memory)
                or (r.state == "dead" and t.destinations[r.destination].skips)
            )
        ]
        t.finish(known)
        if self.chance.random() < self.miss:
            return parked
        return parked + t.release(finished, self)

    def _is_current(self, id_: str, generation: int | None) -> bool:
        m = self.tables.messages.get(id_)
        return m is not None and (m.state == "held" if generation is None else m.generation == generation)

    def _write(self, r: Ruled) -> list[Parked]:
        t, m = self.tables, self.tables.messages[r.message_id]
        d = t.deliveries.get((r.message_id, r.destination))
        if d is not None and (r.is_unknown or d.generation != r.generation):
            return []
        if d is None:
            d = t.deliveries[m.id, r.destination] = Delivery(m, r.destination, r.state, generation=r.generation)
        t.change(d, r.state, self)
        d.attempts, d.due_at = r.attempts, t.clock() + r.delay_s
        if r.attempts and d.first_failed_at is None:
            d.first_failed_at = t.clock()
        return [(r.destination, m.shard, m.position)] if r.state == "parked" else []

    def discard(self, deliveries: Sequence[tuple[str, str]]) -> list[Parked]:
        self._check()
        keys = [(d.destination, d.message.key) for pair in deliveries if (d := self.tables.deliveries.get(pair))]
        self.tables.finish({id_ for id_, _ in deliveries})
        return self.tables.release(keys, self)

    def mark_unrouted(self, messages: Sequence[tuple[str, int]]) -> None:
        raise AssertionError("every type is wanted here")

    # -------------------------------------------------------- destinations

    def report(self, finding: Finding) -> None:
        self._check()
        d, now = self.tables.destinations[finding.name], self.tables.clock()
        if d.paused_by == "operator" or not self._may_change(finding, now):
            return
        d.state, d.reason, d.pauses = finding.state, finding.reason, finding.pauses
        d.changed_at = now
        d.paused_by = "failure" if finding.state != "healthy" else None
        d.until = None if finding.wait_s is None else now + finding.wait_s
        if finding.disputes:
            d.disputed_at = now
        elif finding.is_probe:
            d.disputed_at = -1e9

    def _may_change(self, f: Finding, now: float) -> bool:
        d = self.tables.destinations[f.name]
        match f.state:
            case "off":
                return True
            case "throttled":
                return d.state != "off"
            case "paused":
                is_over = d.state == "throttled" and (d.until or 0) < now
                is_free = d.state == "healthy" or (d.state != "off" and d.until is None) or is_over
                return f.is_probe or (is_free and d.disputed_at < now - DISPUTED_S)
        is_nearly_over = d.state != "paused" and (d.until or 0) < now + 1
        return d.state != "off" and (f.is_probe or f.disputes or d.until is None or is_nearly_over)

    def claim_probe(self, name: str) -> tuple[bool, SharedState]:
        self._check()
        d, now = self.tables.destinations[name], self.tables.clock()
        claimed = d.state == "paused" and d.paused_by == "failure" and d.until is not None and d.until <= now
        if claimed:
            d.until = now + PROBE_LEASE_S
        return claimed, self.tables.shared_state(name)

    def claim_rate(self, name: str, want: int, rate: Rate) -> tuple[int, float]:
        self._check()
        d, now = self.tables.destinations[name], self.tables.clock()
        granted, d.arrival_s = rate.claim(d.arrival_s, now, want)
        return granted, rate.wait_s(d.arrival_s, now)

    def wait(self, timeout_s: float, wake_fd: int) -> bool:
        return False

    def sleep_s(self, wanted_s: float, short_s: float) -> float:
        return short_s

    def awake(self) -> None: ...


def _instant(at: float) -> datetime:
    return EPOCH + timedelta(seconds=at)


def _text(at: float | None) -> str | None:
    return None if at is None else str(_instant(at))


def _position(message: Message) -> int:
    return message.position


def _row(m: Message) -> tuple[Any, ...]:
    data = f'{{"n": {m.number}}}'
    return (
        m.id, m.position, m.shard, m.generation, m.type, "sim", None, m.key, data, "{}", _text(m.created_at), None,
        _text(m.expires_at), _text(m.due_at or None),
    )  # fmt: skip
