"""Bring messages back from the history: see `relay.store.replay_sql`."""

from __future__ import annotations

from relay.store.replay_sql import COLUMNS, COUNT, DELIVERED, OLD, PAGE, REPLAY_OF

# No row is read.
_ESTIMATE = """EXPLAIN (FORMAT JSON) SELECT FROM outbox_history AS h
WHERE h.delivered_at >= :since AND h.delivered_at < :until AND h.type LIKE :type ESCAPE '/'
"""

_PICKED = "unnest(CAST(:ids AS uuid[]), CAST(:ats AS timestamptz[]), CAST(:news AS uuid[])) AS p (id, at, new_id)"
_HISTORY = f"{_PICKED} JOIN outbox_history AS h ON h.id = p.id AND h.delivered_at = p.at"

_NAMED = "h.id = ANY (CAST(:named AS uuid[]))"

STATEMENTS = {
    "page": PAGE.format(delivered_at="h.delivered_at", which=DELIVERED),
    "count": COUNT.format(which=DELIVERED),
    "estimate": _ESTIMATE,
    "page_of_named": PAGE.format(delivered_at="h.delivered_at", which=_NAMED),
    "count_named": COUNT.format(which=_NAMED),
    # At its old position, so it goes before the messages that wait behind it in its key.
    "bring_back": f"""
INSERT INTO outbox_message (id, position, {COLUMNS}, headers, created_at, state, generation) OVERRIDING SYSTEM VALUE
SELECT h.id, h.position, {OLD}, h.headers, h.created_at, 'held', :generation
FROM {_HISTORY}
ON CONFLICT (id) DO NOTHING
""",
    "write_anew": f"""
INSERT INTO outbox_message (id, {COLUMNS}, headers, state)
SELECT p.new_id, {OLD},
       (h.headers::jsonb || jsonb_build_object('{REPLAY_OF}', h.id::text))::json, 'held'
FROM {_HISTORY} ORDER BY h.position
""",
}
