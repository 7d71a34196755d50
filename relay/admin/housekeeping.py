"""Do the periodic work: create partitions in advance, drop old ones, and remove the traces of dead relays.

Delivery does not depend on this work, and none of it runs on the owning connection. One relay at a time does it. If one
run fails, the next run does its work. Ages are measured by the database's clock: a relay whose host's clock is days
ahead would otherwise detach the partition that all relays settle into.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
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
from relay.databases.dialect import dialect_of
from relay.decide.outcome import fingerprint
from relay.observe.backlog import SAMPLE_EVERY_S, Backlog
from relay.observe.metrics import Metrics
from relay.settings import Settings

log = structlog.get_logger("relay")

DAYS_AHEAD = 3
BATCH = 5_000
PAUSE_S = 0.1  # between two batches, so that other writers on SQLite get a turn

# The second: another job waits for the database, and has the only connection.
FAILURES = (sa.exc.DBAPIError, sa.exc.TimeoutError)

Job = Callable[[sa.Connection], int]  # returns how many rows it found to delete


class Housekeeping:
    """Does the periodic work beside a relay.

    Args:
        settings: The database, and how long data is kept.
        relay_id: The relay's id.
        metrics: The relay's metrics, which show the samples of the backlog and are stored over time.
    """

    def __init__(self, settings: Settings, *, relay_id: str, metrics: Metrics) -> None:
        logging.getLogger("apscheduler").setLevel(logging.ERROR)  # without a warning for each round that was skipped
        self._settings = settings
        self._engine = settings.database.engine(keeps_session=True, pool_size=1, max_overflow=0, pool_pre_ping=True)
        self._dialect = dialect_of(self._engine)
        self._t = tables(settings.database.schema)
        self._sampler = Sampler(metrics, relay_id)
        self._scheduler = BackgroundScheduler(timezone=UTC)
        self._stopping = Event()
        self._failed_by: dict[str, str | None] = {}  # job -> the cause that was logged
        self._relay_id, self._backlog, self._floors = relay_id, metrics.backlog, Floors()

    def start(self) -> None:
        """Begin; the first round runs at once."""
        jobs: list[tuple[Job, timedelta]] = [
            (self.remove_traces, timedelta(minutes=1)),
            (self.forget_inbox_marks, timedelta(minutes=10)),
            (self.thin_out_samples, timedelta(minutes=10)),
            (self.add_partitions, timedelta(hours=1)),
        ]
        for job, every in jobs:
            self._add(job.__name__, partial(self._run, job), every)
        self._add("delete_history", self.delete_history, timedelta(minutes=10))
        for sampling in (self.sample_backlog, self.keep_sample):
            # At full steps of the clock, so that each interval of a plot has one sample of each relay.
            self._schedule(sampling, SAMPLE_EVERY_S, start_date=datetime(2026, 1, 1, tzinfo=UTC))
        self._scheduler.start()

    def stop(self) -> None:
        self._stopping.set()
        self._scheduler.shutdown(wait=True)
        self.keep_sample()  # covers the last seconds, or the whole of a short run
        self._engine.dispose()

    def _add(self, name: str, function: Callable[[], object], every: timedelta) -> None:
        seconds = every.total_seconds()
        self._schedule(function, seconds, jitter=seconds / 10, next_run_time=datetime.now(UTC), name=name)

    def _schedule(self, function: Callable[[], object], seconds: float, **times: Any) -> None:
        self._scheduler.add_job(function, "interval", seconds=seconds, coalesce=True, misfire_grace_time=None, **times)

    def _run(self, job: Job) -> None:
        """Run one round in batches, if no other relay is doing it and the database takes writes."""
        with self._failing(job.__name__):
            while self._batch(job) == BATCH and not self._stopping.wait(PAUSE_S):
                continue

    @contextmanager
    def _failing(self, job: str) -> Iterator[None]:
        """Log an error of the database, once for each cause until the job works again; the next round does the work."""
        try:
            yield
        except FAILURES as error:
            reason = _said(error)
            if self._failed_by.get(job) != (cause := fingerprint(reason)):
                self._failed_by[job] = cause
                log.warning("housekeeping_failed", job=job, reason=reason)
        else:
            self._failed_by.pop(job, None)

    def _batch(self, job: Job) -> int:
        with self._engine.begin() as connection:
            return job(connection) if self._is_mine(connection) else 0

    def _is_mine(self, connection: sa.Connection) -> bool:
        return not self._dialect.is_standby(connection) and self._dialect.take_turn(connection)

    # ------------------------------------------------------------------- jobs

    def sample_backlog(self) -> None:
        """Sample the backlog for all relays, if this relay has been alive for the longest time."""
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
        except FAILURES as error:  # the last sample stays, and becomes stale
            self._note_gap("sample_backlog", error)

    def _keep_backlog(self, found: Backlog) -> None:
        with self._engine.begin() as connection:
            if not self._dialect.is_standby(connection):
                self._sampler.keep_backlog(connection, found)

    def keep_sample(self) -> None:
        """Store what this relay did since the last call."""
        try:
            with self._engine.begin() as connection:
                if not self._dialect.is_standby(connection):
                    self._sampler.keep_done(connection)
        except FAILURES as error:
            self._note_gap("keep_sample", error)

    @staticmethod
    def _note_gap(job: str, error: sa.exc.SQLAlchemyError) -> None:
        """Log a missing sample. The gauges and plots show the gap; the relay has logged why the database fails."""
        log.debug("sample_failed", job=job, reason=_said(error))

    def thin_out_samples(self, connection: sa.Connection) -> int:
        """Merge old measurements into fewer rows, and delete the oldest."""
        return thin_out(connection, now(connection), BATCH)

    def add_partitions(self, connection: sa.Connection) -> int:
        """Create the history's partitions for today and for the next days, where it has partitions."""
        today = now(connection).astimezone(UTC).date()
        for offset in range(DAYS_AHEAD + 1):
            self._dialect.add_partition(connection, today + timedelta(days=offset))
        return 0

    def delete_history(self) -> None:
        """Delete the history that is older than the retention."""
        with self._failing("delete_history"):
            while self._delete_old_history() == BATCH and not self._stopping.wait(PAUSE_S):
                continue

    def _delete_old_history(self) -> int:
        with self._engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")  # a transaction cannot detach a partition
            if self._dialect.is_standby(connection):
                return 0
            before = now(connection) - timedelta(days=self._settings.retention_days)
            return self._dialect.delete_history(connection, before, BATCH)

    def forget_inbox_marks(self, connection: sa.Connection) -> int:
        """Delete inbox marks after their retention, unless their message still exists."""
        i, m, h = self._t.inbox.c, self._t.message.c, self._t.history.c
        before = now(connection) - timedelta(days=self._settings.inbox_retention_days)
        # Compared in the form in which ids are stored and indexed; a mark may name another system's message.
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

        On PostgreSQL a frozen relay may still hold its locks, and a peer needs the row to end that relay's session.
        """
        r = self._t.relay.c
        before = now(connection) - timedelta(seconds=max(60.0, 20 * self._settings.lease_s))
        return connection.execute(
            sa.delete(self._t.relay).where(r.last_seen_at < before, self._dialect.HOLDS_NOTHING)
        ).rowcount


def _said(error: sa.exc.SQLAlchemyError) -> str:
    return " ".join(str(getattr(error, "orig", None) or error).split())
