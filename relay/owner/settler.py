"""Settle: write verdicts from memory into rows, in batches.

In the plain case every destination took the message at the first attempt, and this session read it: one statement
settles the batch. Other entries are decided row by row in a separate transaction: exceptions, and entries that were
taken while the session was lost. Of the latter only `delivered` is written, which is true whichever relay owns the
shard now; the other deliveries are read again.

If every batch waited for the disk, its latency would slow every destination, also a healthy one beside one whose
deliveries are parked. So only one batch in `DURABLE_EVERY_S` waits, and every batch in which an attempt was charged.
Entries that were taken since the last batch that waited are remembered (`Unconfirmed`), and settled once more if the
session is lost: a server that crashed may have lost them. If it lost a parked delivery, its message is ready again.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import structlog
from opentelemetry.trace import Span

from relay.decide.backoff import jittered
from relay.decide.outcome import fingerprint
from relay.decide.verdict import CHARGED, TRIED, State, Verdict
from relay.observe.tracing import ending, settling, tracer
from relay.seam import Entry, Route, front
from relay.store.contract import Batch, Ruled, Session
from relay.store.rows import Parked

log = structlog.get_logger("relay")

BATCH = 2000
DETAIL_LENGTH = 500
DURABLE_EVERY_S = 0.1
UNCONFIRMED_LIMIT = 20_000

Unconfirmed = list[Entry]


class Settler:
    """Writes verdicts through one session.

    Args:
        session: Writes the verdicts.
        epoch: The session's number: entries of an earlier one are stale.
        skipping: The destinations whose dead letters do not block their successors.
        unconfirmed: Entries whose settling may not be on disk yet; the next session gets the same object.
        note: Called with the deliveries that are parked now, and the destinations that have tried them, before the
            entries are forgotten.
        forget: Called with entries that are settled.
        reread: Called with stale entries that not every destination took: they have to be read again.
        clock: The time, in seconds.
    """

    def __init__(
        self,
        session: Session,
        epoch: int,
        *,
        skipping: Sequence[str],
        unconfirmed: Unconfirmed,
        note: Callable[[Sequence[Parked], Collection[str]], None],
        forget: Callable[[Collection[Entry]], None],
        reread: Callable[[Entry], None],
        clock: Callable[[], float],
    ) -> None:
        self._session, self._epoch, self._skipping = session, epoch, skipping
        self._note, self._forget, self._reread = note, forget, reread
        self._unconfirmed, self._clock = unconfirmed, clock
        self._durable_at = 0.0
        self._tracer = tracer()
        self.began_at = 0.0
        self._finish: Callable[[], None] | None = None
        self._settled_count = 0

    def settle(self, done: deque[Entry], ruled: deque[Entry], limit: int) -> None:
        """Settle all plain entries, and at most `limit` exceptions.

        An exception costs ten times as much as a plain message. The limit bounds how long a destination that goes down
        with a thousand messages in its queue delays the reading for the others.

        Plain entries go first: the table must not learn that a message failed before it learns that its predecessor is
        done. Entries leave their queue when they are settled, so a lost session loses none.
        """
        exceptions = front(ruled, limit)
        self.begin(done)
        for tried_at, group in groupby(exceptions, key=_tried_at):
            alike = list(group)
            self.finish()
            durable = self._is_time_to_wait() or any(map(_is_charged, alike))
            if self._settle_ruled(alike, durable=durable, tried_at=tried_at):
                self._remember(list(filter(_is_taken, alike)), durable=durable)
            self._leave(ruled, alike)

    def begin(self, done: deque[Entry]) -> None:
        """Settle the plain entries without waiting for the last batch; `finish` waits for it."""
        self.finish()
        self.began_at = self._clock()
        for _ in range(0, len(done), BATCH):
            self.finish()
            self._begin_batch(done, front(done, BATCH))

    @property
    def has_begun(self) -> bool:
        """Whether a batch is being settled."""
        return self._finish is not None

    def finish(self) -> int:
        """Wait for the batch that was begun; return how many entries this session has settled so far."""
        if self._finish is not None:
            self._finish()
            self._finish = None
        return self._settled_count

    def set_aside(self, unrouted: deque[Entry]) -> None:
        """Set unrouted messages aside."""
        while unrouted:
            batch = front(unrouted, BATCH)
            fresh = [(e.id, e.generation) for e in batch if e.epoch == self._epoch]
            if fresh:
                self._session.mark_unrouted(fresh)
            self._leave(unrouted, batch)
            for entry in batch:
                if entry.epoch != self._epoch:
                    self._reread(entry)

    def _leave(self, queue: deque[Entry], batch: Sequence[Entry]) -> None:
        """Remove entries from their queue, now that they are settled."""
        for _ in batch:
            queue.popleft()
        self._settled_count += len(batch)
        self._forget(batch)

    def _begin_batch(self, done: deque[Entry], entries: Sequence[Entry]) -> None:
        epoch, durable = self._epoch, self._is_time_to_wait()
        fresh = [e.row for e in entries if e.epoch == epoch]
        span = self._span(entries) if fresh else None
        counted = self._session.settle_plain_ahead(fresh, durable=durable) if fresh else None

        def finish() -> None:
            count = 0
            if counted is not None:
                with ending(span):
                    count = counted()
                self._remember(entries, durable=durable)
            # The others were read by an earlier session, or a former owner has since set a delivery of them aside.
            # Those that are settled by now are not found again. Every destination took them, so none is read again: a
            # page may be on its way to the event loop, and until it arrives no cursor may go back.
            if count < len(entries):
                self._settle_ruled(entries)
            self._leave(done, entries)

        self._finish = finish

    def _span(self, entries: Sequence[Entry]) -> Span | None:
        if self._tracer is None:
            return None
        return settling(self._tracer, (entry.message for entry in entries), len(entries))

    def settle_again(self) -> None:
        """Settle again what the last session settled: a server that crashed may have lost it."""
        while self._unconfirmed:
            self._settle_ruled(self._unconfirmed[:BATCH])
            del self._unconfirmed[:BATCH]

    def _is_time_to_wait(self) -> bool:
        return self._clock() - self._durable_at > DURABLE_EVERY_S or len(self._unconfirmed) > UNCONFIRMED_LIMIT

    def _remember(self, entries: Sequence[Entry], *, durable: bool) -> None:
        if durable:
            self._unconfirmed.clear()
            self._durable_at = self._clock()
        else:
            self._unconfirmed.extend(entries)

    def _settle_ruled(self, entries: Sequence[Entry], *, durable: bool = True, tried_at: Collection[str] = ()) -> bool:
        """Write the verdicts on these entries; return whether there were any to write."""
        messages: list[tuple[str, int]] = []
        found: dict[tuple[str, str], Ruled] = {}  # if it was parked, read back and taken, the last verdict
        unknown: list[Entry] = []
        for entry in entries:
            verdicts = self._verdicts(entry)
            if not verdicts:
                unknown.append(entry)
                continue
            if any(verdict is _UNKNOWN for _, verdict in verdicts):
                unknown.append(entry)
            if entry.destination is None:
                messages.append((entry.id, entry.generation))
            found |= {(entry.id, lane.name): _ruled(entry, lane, verdict) for lane, verdict in verdicts}
        ruled = list(found.values())
        if ruled:
            with ending(self._span(entries)):
                parked = self._session.settle(Batch(messages, ruled, self._skipping), durable=durable)
            self._note(parked, tried_at)
            _report_dead(ruled)
            _report_expired(ruled)
        for entry in unknown:  # only now does the table know which destinations took it
            self._reread(entry)
        return bool(ruled)

    def _verdicts(self, entry: Entry) -> list[tuple[Route, Verdict]]:
        """Return the verdicts of an entry that may be written: all, or those that are true for any owner."""
        verdicts = [(lane, entry.verdict_of(lane.name)) for lane in entry.lanes]
        if entry.epoch == self._epoch:
            return verdicts
        if not any(verdict.state == State.DELIVERED for _, verdict in verdicts):
            return []
        return [(lane, verdict if verdict.state == State.DELIVERED else _UNKNOWN) for lane, verdict in verdicts]


_UNKNOWN = Verdict(State.PARKED)


def _is_charged(entry: Entry) -> bool:
    return any(verdict.state in CHARGED for verdict in (entry.verdicts or {}).values())


def _tried_at(entry: Entry) -> tuple[str, ...]:
    """Return the destinations that have tried an entry and have no room for it."""
    return tuple(name for name, verdict in (entry.verdicts or {}).items() if verdict is TRIED)


def _is_taken(entry: Entry) -> bool:
    return any(entry.verdict_of(lane.name).state == State.DELIVERED for lane in entry.lanes)


def _ruled(entry: Entry, lane: Route, verdict: Verdict) -> Ruled:
    attempts = entry.attempts + verdict.charged
    return Ruled(
        message_id=entry.id,
        destination=lane.name,
        state=verdict.state,
        generation=entry.generation if entry.destination is not None else 0,
        attempts=attempts,
        delay_s=verdict.delay_floor_s + jittered(verdict.delay_ceiling_s, random.random()),  # noqa: S311
        reason=verdict.reason,
        log=_log(attempts, verdict) if verdict.reason is not None and verdict.state != State.EXPIRED else None,
        behind_memory=verdict.behind_memory,
        is_keyed=entry.key is not None,
        is_unknown=verdict is _UNKNOWN,
    )


def _report_dead(ruled: Sequence[Ruled]) -> None:
    """Log one line for each destination and cause."""
    causes: dict[tuple[str, str | None], list[Ruled]] = {}
    for r in ruled:
        if r.state == State.DEAD:
            causes.setdefault((r.destination, fingerprint(r.reason)), []).append(r)
    for (destination, _), dead in causes.items():
        first = dead[0]
        log.warning(
            "dead_letters", destination=destination, count=len(dead), message_id=first.message_id, reason=first.reason
        )


def _report_expired(ruled: Sequence[Ruled]) -> None:
    for destination, count in Counter(r.destination for r in ruled if r.state == State.EXPIRED).items():
        log.warning("deliveries_expired", destination=destination, count=count)


def _log(attempt: int, verdict: Verdict) -> dict[str, Any]:
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    entry = {"at": at, "attempt": attempt, "verdict": verdict.state, "reason": verdict.reason}
    return entry | ({"detail": verdict.detail[:DETAIL_LENGTH]} if verdict.detail else {})
