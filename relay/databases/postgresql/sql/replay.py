"""Bring messages back from the history: see `relay.databases.store.replay_sql`."""

from __future__ import annotations

from relay.databases.store.replay_sql import COLUMNS, OLD, REPLAY_OF

_PICKED = "unnest(CAST(:ids AS uuid[]), CAST(:ats AS timestamptz[]), CAST(:news AS uuid[])) AS p (id, at, new_id)"
_HISTORY = f"{_PICKED} JOIN outbox_history AS h ON h.id = p.id AND h.delivered_at = p.at"

# At the old position, so that the message goes before those of its key that wait behind it.
BRING_BACK = f"""
INSERT INTO outbox_message (id, position, {COLUMNS}, headers, created_at, state, generation) OVERRIDING SYSTEM VALUE
SELECT h.id, h.position, {OLD}, h.headers, h.created_at, 'held', :generation
FROM {_HISTORY}
ON CONFLICT (id) DO NOTHING
"""
WRITE_ANEW = f"""
INSERT INTO outbox_message (id, {COLUMNS}, headers, state)
SELECT p.new_id, {OLD},
       (h.headers::jsonb || jsonb_build_object('{REPLAY_OF}', h.id::text))::json, 'held'
FROM {_HISTORY} ORDER BY h.position
"""
