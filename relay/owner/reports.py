"""Write the event loop's findings into the database, answer its questions, and log what it gave up.

Crash notes are written first in a turn, because attempts wait for them. Requests follow the verdicts. Each report
leaves its queue only when it is written, so none is lost with a session.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

import structlog

from relay.databases.store.contract import Ownership
from relay.databases.store.records import Ruled
from relay.decide.outcome import fingerprint
from relay.decide.shared_state import Finding
from relay.decide.verdict import State
from relay.seam import Claim, OwnersSeam, Probe

log = structlog.get_logger("relay")
F = TypeVar("F", bound=tuple[Any, ...])


class Reports:
    """Writes what the event loop reports, through one session.

    Args:
        ownership: The ownership of the session.
        epoch: The session's number: a note of an earlier session is not written.
        seam: Holds the reports, and sends the answers.
        clock: The time, in seconds.
    """

    def __init__(self, ownership: Ownership, epoch: int, seam: OwnersSeam, clock: Callable[[], float]) -> None:
        self._ownership, self._epoch, self._clock = ownership, epoch, clock
        self._heard, self._tell, self._crashes = seam.heard, seam.tell, seam.crashes

    def write_notes(self) -> None:
        """Write the notes of the crash guard, all with one statement."""
        taken = [self._heard.notes.popleft() for _ in range(len(self._heard.notes))]
        if notes := [note for note in taken if note.epoch == self._epoch]:
            records: dict[int, str | None] = {}
            for note in notes:
                records.update(note.records)
            self._ownership.note(records)
            self._crashes.written(notes)

    def answer_requests(self) -> None:
        """Write the findings about destinations; claim probes and shares of rates."""
        requests = self._heard.requests
        while requests:
            asked_at = self._clock()
            match requests[0]:
                case Finding() as finding:
                    self._ownership.report(finding)
                case Probe(name):
                    claimed, shared_state = self._ownership.claim_probe(name)
                    self._tell.answer_probe(name, claimed, shared_state, asked_at)
                case Claim(name, want, rate):
                    granted, wait_s = self._ownership.claim_rate(name, want, rate)
                    self._tell.answer_claim(name, granted, wait_s, asked_at)
            requests.popleft()


def report_dead(ruled: Sequence[Ruled]) -> None:
    """Log one line for each destination and cause."""
    dead = [(r.message_id, r.reason, r.destination) for r in ruled if r.state == State.DEAD]
    for (message_id, reason, destination), count in _causes(dead):
        log.warning("dead_letters", destination=destination, count=count, message_id=message_id, reason=reason)


def report_not_finished(refused: Sequence[tuple[str, str]]) -> None:
    """Log one line for each cause.

    Args:
        refused: Messages that the database does not let move to the history: the id, and the reason.
    """
    for (message_id, reason), count in _causes(refused):
        log.warning("not_finished", count=count, message_id=message_id, reason=reason)


def _causes(failures: Iterable[F]) -> Iterable[tuple[F, int]]:
    """Return the first failure of each cause, and how many there are. The cause is all fields but id and reason."""
    found: dict[Hashable, list[F]] = {}
    for failure in failures:
        _, reason, *where = failure
        found.setdefault((fingerprint(reason), *where), []).append(failure)
    return [(alike[0], len(alike)) for alike in found.values()]


def report_expired(ruled: Sequence[Ruled]) -> None:
    """Log one line for each destination."""
    for destination, count in Counter(r.destination for r in ruled if r.state == State.EXPIRED).items():
        log.warning("deliveries_expired", destination=destination, count=count)
