"""Long changes: each runs in a separate thread and reports its progress."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import sqlalchemy as sa
import structlog

from outbox.errors import OutboxError
from relay.admin.audit import acting_as
from relay.observe.text import shown

log = structlog.get_logger("dashboard")

KEPT = 50
AT_ONCE = 4

Tell = Callable[[int], object]


@dataclass
class Job:
    """One change.

    Args:
        doing: Its action, for people: ``retry``.
        total: The count at its beginning.
        by: The person who began it, for the audit.
        back: The page to return to.
        id: The id in its address.
        done: The count of finished items.
        ended: Whether it has ended.
        failed: Why it ended early, or ``None``.
        is_least: Whether the total is a lower bound.
    """

    doing: str
    total: int
    by: str
    back: str
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    done: int = 0
    ended: bool = False
    failed: str | None = None
    is_least: bool = False

    @property
    def percent(self) -> int:
        """Its progress, in percent."""
        return 100 if self.ended and not self.failed else min(100 * self.done // max(self.total, 1), 99)


class Busy(Exception):
    """Too many changes run already."""


class Jobs:
    """The changes of one dashboard."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._threads: list[threading.Thread] = []

    def begin(self, job: Job, work: Callable[[Tell], int]) -> Job:
        """Begin a change.

        Args:
            job: The change.
            work: Makes the change; gets a function that takes the progress, and returns the count.

        Raises:
            Busy: Too many changes are running already.
        """
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if len(self._threads) >= AT_ONCE:
            raise Busy("other changes are still running: wait until one has ended")
        self._jobs[job.id] = job
        while len(self._jobs) > KEPT:
            self._jobs.popitem(last=False)
        thread = threading.Thread(target=self._run, args=(job, work), name=f"dashboard-{job.doing}", daemon=True)
        self._threads.append(thread)
        thread.start()
        return job

    def find(self, id_: str) -> Job | None:
        """Return one of the latest changes."""
        return self._jobs.get(id_)

    def _run(self, job: Job, work: Callable[[Tell], int]) -> None:
        def tell(count: int) -> None:
            job.done = count

        try:
            with acting_as(job.by):
                job.done = work(tell)
        except (OutboxError, sa.exc.SQLAlchemyError) as error:
            job.failed = shown(error)
            log.warning("dashboard_change_failed", doing=job.doing, reason=job.failed)
        finally:
            job.ended = True
