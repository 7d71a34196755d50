"""A worker that commits a result and its message together, repeatedly, and may kill itself at a given point.

`python doomed_worker.py URL POINT`: at the named point of its fifth transaction it sends itself SIGKILL; `none` means
never. It prints the number of each transaction that it knows to be committed.
"""

import os
import signal
import sys
from itertools import count

from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from outbox import emit

POINTS = ("begun", "result written", "message emitted", "message flushed", "committed")
_FATAL = 5


def main(url: str, point: str) -> None:
    engine = create_engine(url)
    for n in count(1):
        doom = point if n == _FATAL else None
        with Session(engine) as session:
            session.connection()
            _die_at("begun", doom)
            session.execute(text("INSERT INTO result (n, message_id) VALUES (:n, :id)"), {"n": n, "id": f"m-{n}"})
            _die_at("result written", doom)
            emit(session, "extraction.completed", {"n": n}, subject=f"m-{n}")
            _die_at("message emitted", doom)
            session.flush()
            _die_at("message flushed", doom)
            session.commit()
            _die_at("committed", doom)
        print(n, flush=True)


def _die_at(point: str, doom: str | None) -> None:
    if point == doom:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
