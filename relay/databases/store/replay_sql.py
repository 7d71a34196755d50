"""Bring messages back from the history, on every database.

A dialect has two statements for that. Both have the parameters that its `picked` returns: arrays on PostgreSQL, JSON on
SQLite.

- `BRING_BACK` writes the picked entries of ``outbox_history`` to ``outbox_message`` again, with their ids and
  positions, as held messages of the generation ``:generation``. It skips an id that already exists there.
- `WRITE_ANEW` writes them as held messages with their new ids and new positions, in the order of the old ones. The
  header `REPLAY_OF` has the old id.
"""

from __future__ import annotations

COLUMNS = "type, source, subject, ordering_key, data"
OLD = ", ".join("h." + column for column in COLUMNS.split(", "))
REPLAY_OF = "outbox-replay-of"
