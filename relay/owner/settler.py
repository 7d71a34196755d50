"""Write verdicts from memory into rows, in batches.

In the plain case every destination took the message at the first attempt, and this session read it: one statement
settles the batch. Exceptions, and entries that were taken while the session was lost, are decided row by row in a
separate transaction. For an entry of a lost session only `delivered` is written, because that is true whichever relay
owns the shard now; its other deliveries are read again.

If every batch waited for the disk, the disk's latency would slow every destination, even a healthy one beside one whose
deliveries are parked. So only one batch in each `DURABLE_EVERY_S` waits, and every batch in which an attempt was
charged. Entries that were taken since the last batch that waited are remembered (`Unconfirmed`) and settled once more
if the session is lost, because a server that crashed may have lost them. If it lost a parked delivery, the message is
ready again.

A constraint or a trigger of the host may refuse a row. Then the rest of its batch is settled without it. If a message
may not move to the history, its verdicts are written with the reason, and `relay.owner.sweeper` later tries again to
finish it. If the verdicts are refused, too, the message is left as it is, and the next session sends it again.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from typing import Any

import structlog
from opentelemetry.trace import Span

from relay.databases.store.contract import Settling
from relay.databases.store.records import Batch, Ruled
from relay.databases.store.refused import RefusedRow, refused_of
from relay.databases.store.ruling import DONE
from relay.decide.backoff import jittered
from relay.decide.verdict import CHARGED, TRIED, State, Verdict
from relay.observe.tracing import ending, settling, tracer
from relay.owner.reader import Reader
from relay.owner.reports import report_dead, report_expired, report_not_finished
from relay.seam import Entry, OwnersSeam, Route, front

log = structlog.get_logger("relay")

BATCH = 2000
DETAIL_LENGTH = 500
DURABLE_EVERY_S = 0.1
UNCONFIRMED_LIMIT = 20_000

Unconfirmed = list[Entry]


class Settler:
    """Writes verdicts through one session.

    Args:
        settling: The writes of the session.
        epoch: The session's number: entries of an earlier session are stale.
        reader: Reads parked deliveries, and stale entries that not every destination took.
        seam: Has the event loop forget entries that are settled.
        unconfirmed: Entries whose verdicts may not be on disk yet; the next session gets the same object.
        clock: The time, in seconds.
    """

    def __init__(
        self,
        settling: Settling,
        epoch: int,
        reader: Reader,
        seam: OwnersSeam,
        *,
        unconfirmed: Unconfirmed,
        clock: Callable[[], float],
    ) -> None:
        self._settling, self._epoch = settling, epoch
        self._reader, self._tell = reader, seam.tell
        self._unconfirmed, self._clock = unconfirmed, clock
        self._durable_at = 0.0
        self._tracer = tracer()
        self.began_at = 0.0
        self._finish: Callable[[], None] | None = None
        self._settled_count = 0

    def settle(self, done: deque[Entry], ruled: deque[Entry], limit: int) -> None:
        """Settle all plain entries, and at most `limit` exceptions.

        An exception costs ten times as much as a plain message. If a destination goes down with a thousand messages in
        its queue, the limit bounds how long they delay reading for the other destinations.

        Plain entries go first: the table must not learn that a message failed before it learns that its predecessor is
        done. Entries leave their queue only when they are settled, so none is lost with a session.
        """
        exceptions = front(ruled, limit)
        for _ in range(0, len(done), BATCH):
            self.begin(done)
        for tried_at, group in groupby(exceptions, key=_tried_at):
            alike = list(group)
            self.finish()
            durable = self._is_time_to_wait() or any(map(_is_charged, alike))
            if self._settle_ruled(alike, durable=durable, tried_at=tried_at):
                self._remember(list(filter(_is_taken, alike)), durable=durable)
            self._leave(ruled, alike)

    def begin(self, done: deque[Entry]) -> None:
        """Settle a batch of plain entries without waiting for it; `finish` waits."""
        self.finish()
        self.began_at = self._clock()
        if done:
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
            refused = refused_of(fresh, self._settling.mark_unrouted) if fresh else []
            for (message_id, _), why in refused:
                log.error("row_refused", message_id=message_id, reason=why, left="as it is")
            self._leave(unrouted, batch)
            for entry in batch:
                if entry.epoch != self._epoch:
                    self._reader.reread(entry)

    def _leave(self, queue: deque[Entry], batch: Sequence[Entry]) -> None:
        """Remove entries from their queue, now that they are settled."""
        for _ in batch:
            queue.popleft()
        self._settled_count += len(batch)
        self._tell.forget(batch)

    def _begin_batch(self, done: deque[Entry], entries: Sequence[Entry]) -> None:
        epoch, durable = self._epoch, self._is_time_to_wait()
        fresh = [e.row for e in entries if e.epoch == epoch]
        span = self._span(entries) if fresh else None
        counted = self._settling.settle_plain(fresh, durable=durable) if fresh else None

        def finish() -> None:
            count, others = 0, entries
            if counted is not None:
                with ending(span):
                    try:
                        count = counted()
                    except RefusedRow:
                        others = self._settle_around(entries)
                    else:
                        self._remember(entries, durable=durable)
            # The rest were read by an earlier session, or a former owner has since set aside one of their deliveries.
            # Entries that are settled by now are not found again. Every destination took these entries, so they must
            # not be read again: a page may be on its way to the event loop, and until it arrives no cursor may go back.
            if count < len(others):
                self._settle_ruled(others)
            self._leave(done, entries)

        self._finish = finish

    def _settle_around(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Settle the plain entries that the database does not refuse; return them."""

        def settle(part: Sequence[Entry]) -> None:
            self._settling.settle_plain([e.row for e in part])()

        refused = refused_of([e for e in entries if e.epoch == self._epoch], settle)
        self._leave_open(refused)
        ids = {entry.id for entry, _ in refused}
        return [entry for entry in entries if entry.id not in ids]

    def _leave_open(self, refused: Sequence[tuple[Entry, str]]) -> None:
        """Write the verdicts on entries that cannot be finished, with the reason; the sweeper tries to finish them."""
        why_of = {entry: f"it cannot be moved to the history: {why}" for entry, why in refused}
        mine = [entry for entry in why_of if entry.epoch == self._epoch]

        def write(part: Sequence[Entry]) -> None:
            messages = [(e.id, e.generation) for e in part if e.destination is None]
            ruled = [
                replace(r, reason=why_of[e]) if r.state in DONE else r
                for e in part
                for r in (_ruled(e, lane, verdict) for lane, verdict in self._verdicts(e))
            ]
            self._reader.note_exceptions(self._settling.settle(Batch(messages, ruled, finishes=False)))

        left = dict(refused_of(mine, write))
        for entry, why in left.items():
            log.error("row_refused", message_id=entry.id, reason=why, left="as it is: the next session sends it again")
        report_not_finished([(entry.id, why) for entry, why in why_of.items() if entry not in left])

    def _span(self, entries: Sequence[Entry]) -> Span | None:
        if self._tracer is None:
            return None
        return settling(self._tracer, (entry.new_message() for entry in entries), len(entries))

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
        unknown: list[Entry] = []
        known: list[Entry] = []
        for entry in entries:
            verdicts = self._verdicts(entry)
            if not verdicts or any(verdict is _UNKNOWN for _, verdict in verdicts):
                unknown.append(entry)
            if verdicts:
                known.append(entry)
        self._leave_open(refused_of(known, partial(self._write, durable=durable, tried_at=tried_at)))
        for entry in unknown:  # the table knows only now which destinations took it
            self._reader.reread(entry)
        return bool(known)

    def _write(self, entries: Sequence[Entry], *, durable: bool, tried_at: Collection[str]) -> None:
        """Write all verdicts on these entries, or none."""
        found: dict[tuple[str, str], Ruled] = {}  # the last verdict counts if it was parked, read back, taken
        for entry in entries:
            found |= {(entry.id, lane.name): _ruled(entry, lane, verdict) for lane, verdict in self._verdicts(entry)}
        ruled = list(found.values())
        messages = [(entry.id, entry.generation) for entry in entries if entry.destination is None]
        with ending(self._span(entries)):
            parked = self._settling.settle(Batch(messages, ruled), durable=durable)
        self._reader.note_exceptions(parked, tried_at)  # must come before the entries are forgotten
        report_dead(ruled)
        report_expired(ruled)

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


def _log(attempt: int, verdict: Verdict) -> dict[str, Any]:
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    entry = {"at": at, "attempt": attempt, "verdict": verdict.state, "reason": verdict.reason}
    return entry | ({"detail": verdict.detail[:DETAIL_LENGTH]} if verdict.detail else {})
