"""The parts of one session loop, put together."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from relay.observe.metrics import Metrics
from relay.owner.reader import Reader
from relay.owner.reports import Reports
from relay.owner.settler import Settler, Unconfirmed
from relay.owner.shards import Ownership
from relay.owner.sweeper import Sweeper
from relay.owner.unreadable import Unreadable
from relay.owner.withdrawals import Withdrawals
from relay.seam import OwnersSeam
from relay.settings import Settings
from relay.store.contract import Session
from relay.store.rows import Cursors


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts that a session loop runs in each turn."""

    session: Session
    ownership: Ownership
    reader: Reader
    settler: Settler
    reports: Reports
    withdrawals: Withdrawals
    sweeper: Sweeper


def assemble(
    session: Session,
    epoch: int,
    seam: OwnersSeam,
    settings: Settings,
    *,
    generation: int,
    held_before: Collection[int],
    unconfirmed: Unconfirmed,
    metrics: Metrics,
    clock: Callable[[], float],
) -> Parts:
    """Return the parts of one session loop.

    Args:
        session: The session.
        epoch: Its number.
        seam: Reaches the event loop.
        settings: The settings of the relay.
        generation: The generation of registered destinations that this relay was configured for.
        held_before: The shards that this relay held in its last session.
        unconfirmed: Entries whose settling may not be on disk yet; the next session gets the same object.
        metrics: Counts verdicts.
        clock: The time, in seconds.
    """
    cursors, skipping = Cursors(), seam.view.skipping
    subscriptions = {name: each.events for name, each in settings.destinations.items()}
    reader = Reader(
        session,
        epoch,
        seam,
        cursors,
        unreadable=Unreadable(session, subscriptions, skipping=skipping, count=metrics.count),
        page_size=min(settings.page_size, max(settings.window // 2, 1)),  # leaves room for one page ahead
        clock=clock,
    )
    withdrawals = Withdrawals(epoch, seam, clock)
    return Parts(
        session=session,
        ownership=Ownership(
            session, reader, cursors, seam, generation=generation, held_before=held_before, clock=clock
        ),
        reader=reader,
        settler=Settler(
            session,
            epoch,
            skipping=skipping,
            unconfirmed=unconfirmed,
            note=reader.note_exceptions,
            forget=seam.tell.forget,
            reread=reader.reread,
            clock=clock,
        ),
        reports=Reports(session, epoch, seam, clock),
        withdrawals=withdrawals,
        sweeper=Sweeper(session, cursors, reader, withdrawals, skipping=skipping, count=metrics.count, clock=clock),
    )
