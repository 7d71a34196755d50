"""Write the event loop's findings into the database, and answer its questions.

Crash notes are written first in a turn, because attempts wait for them. Findings, probes and claims follow the
verdicts. Each leaves its queue only when it is written, so a lost session loses none.
"""

from __future__ import annotations

from collections.abc import Callable

from relay.seam import Note, OwnersSeam
from relay.store.contract import Session


class Reports:
    """Writes what the event loop reports, through one session.

    Args:
        session: The session.
        epoch: Its number: a note of an earlier one is not written.
        seam: Holds the reports, and sends the answers.
        clock: The time, in seconds.
    """

    def __init__(self, session: Session, epoch: int, seam: OwnersSeam, clock: Callable[[], float]) -> None:
        self._session, self._epoch, self._clock = session, epoch, clock
        self._heard, self._tell = seam.heard, seam.tell

    def write_notes(self) -> None:
        """Write the notes of the crash guard, all with one statement."""
        notes = self._take_notes()
        if notes:
            records: dict[int, str | None] = {}
            for note in notes:
                records.update(note.records)
            self._session.note(records)
            self._tell.written(notes)

    def _take_notes(self) -> list[Note]:
        taken = [self._heard.notes.popleft() for _ in range(len(self._heard.notes))]
        return [note for note in taken if note.epoch == self._epoch]

    def write_findings(self) -> None:
        """Write the findings about destinations; claim probes and shares of rates."""
        heard = self._heard
        while heard.findings:
            self._session.report(heard.findings[0])
            heard.findings.popleft()
        while heard.probes:
            name, asked_at = heard.probes[0], self._clock()
            claimed, shared_state = self._session.claim_probe(name)
            heard.probes.popleft()
            self._tell.answer_probe(name, claimed, shared_state, asked_at)
        while heard.claims:
            claim, asked_at = heard.claims[0], self._clock()
            granted, wait_s = self._session.claim_rate(*claim)
            heard.claims.popleft()
            self._tell.answer_claim(claim.name, granted, wait_s, asked_at)
