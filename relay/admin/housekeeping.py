"""Periodic work: create partitions in advance, drop old ones, and remove the traces of dead relays.

Delivery needs none of it, and none of it runs on the owning connection. If one run fails, the next one does its work.
One relay at a time does it. Ages are measured by the database's clock: a relay whose host's clock is days ahead would
otherwise detach the partition that all relays settle into.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import partial
from threading import Event
from typing import Any

import sqlalchemy as sa
import structlog
from apscheduler.schedulers.background import BackgroundScheduler

from outbox.tables import tables
from relay.admin.access.queries import now, snapshot
from relay.admin.relays import live_relays
from relay.admin.timeline.backlog import sample
from relay.admin.timeline.floors import Floors
from relay.admin.timeline.samples import thin_out
from relay.admin.timeline.sampling import Sampler
from relay.observe.backlog import SAMPLE_EVERY_S, Backlog, BacklogMetrics
from relay.settings import Settings
from relay.store import dialect_of

log = structlog.get_logger("relay")

LOCK_NOT_AVAILABLE = "55P03"
DAYS_AHEAD = 3
FIRST_SAMPLE_S = 2.0  # after the start: by then the relay has registered
BATCH = 5_000
PAUSE_S = 0.1  # between two batches, so SQLite's other writers get a turn
PARTITION = "outbox_history_%Y%m%d"
PARTITION_LENGTH = len("outbox_history_20260131")  # our partitions may have a suffix after it


Job = Callable[[sa.Connection], int]  # returns how many rows it found to delete


class Housekeeping:
    """Does the periodic work beside a relay.

    Args:
        settings: The database, and how long data is kept.
        relay_id: The relay's id; ``None`` without a relay.
        backlog: Shows the samples of the backlog.
        sampler: Stores measurements; ``None``: none are stored.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        relay_id: str | None = None,
        backlog: BacklogMetrics | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        logging.getLogger("apscheduler").setLevel(logging.WARNING)
        self._settings = settings
        self._engine = settings.database.engine(keeps_session=True, pool_size=1, max_overflow=0, pool_pre_ping=True)
        self._dialect = dialect_of(self._engine)
        self._t = tables(settings.database.schema)
        self._sampler = sampler
        self._scheduler = BackgroundScheduler(timezone=UTC)
        self._stopping = Event()
        self._relay_id, self._backlog, self._floors = relay_id, backlog, Floors()

    def start(self) -> None:
        """Begin; the first round runs at once."""
        jobs: list[tuple[Job, timedelta]] = [
            (self.remove_traces, timedelta(minutes=1)),
            (self.forget_inbox_marks, timedelta(minutes=10)),
            (self.thin_out_samples, timedelta(minutes=10)),
        ]
        if self._dialect.HAS_PARTITIONS:
            jobs.append((self.add_partitions, timedelta(hours=1)))
            self._add("drop_partitions", self.drop_partitions, timedelta(hours=1))
        else:
            jobs.append((self.delete_history, timedelta(minutes=10)))
        for job, every in jobs:
            self._add(job.__name__, partial(self._run, job), every)
        if self._backlog is not None:
            self._add("sample_backlog", self.sample_backlog, timedelta(seconds=SAMPLE_EVERY_S), FIRST_SAMPLE_S)
        if self._sampler is not None:
            self._add("keep_sample", self.keep_sample, timedelta(seconds=SAMPLE_EVERY_S))
        self._scheduler.start()

    def stop(self) -> None:
        self._stopping.set()
        self._scheduler.shutdown(wait=True)
        if self._sampler is not None:
            self.keep_sample()  # the last seconds, or the whole of a short run
        self._engine.dispose()

    def _add(self, name: str, function: Callable[[], object], every: timedelta, first_s: float = 0.0) -> None:
        self._scheduler.add_job(
            function,
            "interval",
            seconds=every.total_seconds(),
            jitter=every.total_seconds() / 10,
            next_run_time=datetime.now(UTC) + timedelta(seconds=first_s),
            name=name,
            coalesce=True,
            misfire_grace_time=None,
        )

    def _run(self, job: Job) -> None:
        """Run one round in batches, if no other relay does, and if the database takes writes."""
        try:
            while self._batch(job) == BATCH and not self._stopping.wait(PAUSE_S):
                continue
        except sa.exc.DBAPIError as error:
            log.warning(
                "housekeeping_failed", job=getattr(job, "__name__", "sample"), reason=" ".join(str(error.orig).split())
            )

    def _batch(self, job: Job) -> int:
        try:
            with self._engine.begin() as connection:
                return job(connection) if self._is_mine(connection) else 0
        except sa.exc.OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
                raise
            return 0  # another relay does it

    def _is_mine(self, connection: sa.Connection) -> bool:
        if self._dialect.is_standby(connection):
            return False
        self._dialect.take_turn(connection)
        return True

    # ------------------------------------------------------------------- jobs

    def sample_backlog(self) -> None:
        """Sample the backlog for all relays, if this relay has been alive for the longest time."""
        assert self._backlog is not None
        try:
            with snapshot(self._engine) as connection:
                relays = live_relays(connection)
                is_first = bool(relays) and relays[0].id == self._relay_id
                found = sample(connection, floors=self._floors, relays=relays) if is_first else None
            if found is None:
                self._backlog.hide()
            else:
                self._backlog.show(found)
                self._keep_backlog(found)
        except sa.exc.DBAPIError as error:  # the last sample becomes stale
            self._note_gap("sample_backlog", error)

    def _keep_backlog(self, found: Backlog) -> None:
        if self._sampler is not None:
            with self._engine.begin() as connection:
                if not self._dialect.is_standby(connection):
                    self._sampler.keep_backlog(connection, found)

    def keep_sample(self) -> None:
        """Store what this relay did since the last call."""
        assert self._sampler is not None
        try:
            with self._engine.begin() as connection:
                if not self._dialect.is_standby(connection):
                    self._sampler.keep_done(connection)
        except sa.exc.DBAPIError as error:
            self._note_gap("keep_sample", error)

    @staticmethod
    def _note_gap(job: str, error: sa.exc.DBAPIError) -> None:
        """Log a missing sample. The gauges and plots show the gap; the relay has logged why its database fails."""
        log.debug("sample_failed", job=job, reason=" ".join(str(error.orig).split()))

    def thin_out_samples(self, connection: sa.Connection) -> int:
        """Merge old measurements into fewer rows, and delete the oldest."""
        return thin_out(connection, now(connection), BATCH)

    def add_partitions(self, connection: sa.Connection) -> int:
        """Create today's partition of the history and those of the next days."""
        today = _today(connection)
        for offset in range(DAYS_AHEAD + 1):
            connection.execute(sa.select(sa.func.outbox_add_partition(today + timedelta(days=offset))))
        return 0

    def drop_partitions(self) -> None:
        """Detach and drop partitions older than the retention: concurrently, and so outside of a transaction."""
        try:
            with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                oldest = _today(connection) - timedelta(days=self._settings.retention_days + 1)
                takes_writes = not self._dialect.is_standby(connection)
                for name, state in self._partitions(connection):
                    day = datetime.strptime(name[:PARTITION_LENGTH], PARTITION).replace(tzinfo=UTC).date()
                    if takes_writes and day < oldest:
                        self._drop(connection, name, day, state)
        except sa.exc.DBAPIError as error:
            log.warning("housekeeping_failed", job="drop_partitions", reason=" ".join(str(error.orig).split()))

    def _partitions(self, connection: sa.Connection) -> list[tuple[str, str]]:
        """Return names and states: attached, pending (a session blocked the detaching), detached (but not dropped)."""
        rows = connection.execute(
            sa.text(
                "SELECT c.relname, CASE i.inhdetachpending WHEN false THEN 'attached' WHEN true THEN 'pending' "
                "ELSE 'detached' END FROM pg_class AS h JOIN pg_class AS c ON c.relnamespace = h.relnamespace "
                "AND c.relkind = 'r' AND c.relowner = h.relowner "
                "AND c.relname ~ '^outbox_history_[0-9]{8}(_[0-9a-f]{8})?$' "
                "LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid AND i.inhparent = h.oid "
                "WHERE h.oid = to_regclass('outbox_history') ORDER BY 1"
            )
        )
        return [(name, state) for name, state in rows]

    def _drop(self, connection: sa.Connection, name: str, day: date, state: str) -> None:
        connection.exec_driver_sql("SET lock_timeout = '2s'")
        owns = connection.scalar(
            sa.text("SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('outbox_history')")
        )
        if owns and state != "detached":
            how = "FINALIZE" if state == "pending" else "CONCURRENTLY"
            connection.exec_driver_sql(f"ALTER TABLE outbox_history DETACH PARTITION {name} {how}")
        connection.execute(sa.select(sa.func.outbox_drop_partition(day)))
        log.info("history_dropped", day=day.isoformat())

    def delete_history(self, connection: sa.Connection) -> int:
        """Delete a batch of the history that is too old, on SQLite, which has no partitions."""
        h = self._t.history.c
        before = now(connection) - timedelta(days=self._settings.retention_days)
        old: sa.Select[Any] = (
            sa.select(sa.literal_column("rowid")).select_from(self._t.history).where(h.delivered_at < before)
        )
        return connection.execute(
            sa.delete(self._t.history).where(sa.literal_column("rowid").in_(old.limit(BATCH).scalar_subquery()))
        ).rowcount

    def forget_inbox_marks(self, connection: sa.Connection) -> int:
        """Delete inbox marks after their retention, unless their message still exists."""
        i, m, h = self._t.inbox.c, self._t.message.c, self._t.history.c
        before = now(connection) - timedelta(days=self._settings.inbox_retention_days)
        # Compared in the form in which ids are stored and indexed; a mark may name a foreign message.
        id_ = self._dialect.as_id(i.message_id)
        old: sa.Select[Any] = (
            sa.select(i.listener, i.message_id)
            .where(
                i.done_at < before,
                ~sa.exists().where(m.id == id_),
                ~sa.exists().where(h.id == id_),
            )
            .limit(BATCH)
        )
        return connection.execute(sa.delete(self._t.inbox).where(sa.tuple_(i.listener, i.message_id).in_(old))).rowcount

    def remove_traces(self, connection: sa.Connection) -> int:
        """Remove the rows of relays that have not beaten for a long time.

        On PostgreSQL a frozen relay may still hold its locks: a peer needs its row to end its session.
        """
        r = self._t.relay.c
        before = now(connection) - timedelta(seconds=max(60.0, 20 * self._settings.lease_s))
        return connection.execute(
            sa.delete(self._t.relay).where(r.last_seen_at < before, self._dialect.HOLDS_NOTHING)
        ).rowcount


def _today(connection: sa.Connection) -> date:
    return now(connection).astimezone(UTC).date()
