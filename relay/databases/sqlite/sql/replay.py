"""Bring messages back from the history: see `relay.databases.store.replay_sql`."""

from __future__ import annotations

from relay.databases.store.replay_sql import COLUMNS, OLD, REPLAY_OF

_HISTORY = """json_each(:picked) AS p
JOIN outbox_history AS h ON h.id = p.value ->> 0 AND h.delivered_at = p.value ->> 1"""

BRING_BACK = f"""
INSERT INTO outbox_message (id, position, {COLUMNS}, headers, created_at, state, generation)
SELECT h.id, h.position, {OLD}, h.headers, h.created_at, 'held', :generation
FROM {_HISTORY} WHERE true
ON CONFLICT DO NOTHING
"""
WRITE_ANEW = f"""
INSERT INTO outbox_message (id, {COLUMNS}, headers, state)
SELECT p.value ->> 2, {OLD},
       json_patch(h.headers, json_object('{REPLAY_OF}', h.id)), 'held'
FROM {_HISTORY} ORDER BY h.position
"""
