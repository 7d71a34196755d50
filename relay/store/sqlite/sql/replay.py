"""Bring messages back from the history: see `relay.store.replay_sql`."""

from __future__ import annotations

from relay.store.replay_sql import COLUMNS, COUNT, DELIVERED, OLD, PAGE, REPLAY_OF

_HISTORY = """json_each(:picked) AS p
JOIN outbox_history AS h ON h.id = p.value ->> 0 AND h.delivered_at = p.value ->> 1"""

_NAMED = "h.id IN (SELECT value FROM json_each(:named))"

STATEMENTS = {
    # Index: outbox_history_delivered. Rows are written in the order in which they are settled.
    "ends": """
SELECT coalesce((SELECT rowid FROM outbox_history WHERE delivered_at >= :since ORDER BY delivered_at LIMIT 1), 0),
       coalesce((SELECT rowid FROM outbox_history WHERE delivered_at < :until ORDER BY delivered_at DESC LIMIT 1), -1)
""",
    # The rows of some short windows of rowids.
    "sampled": f"""
SELECT count(*) FROM json_each(:starts) AS w
CROSS JOIN outbox_history AS h ON h.rowid >= w.value AND h.rowid < w.value + :width
WHERE h.delivered_at >= :since AND h.delivered_at < :until AND h.type LIKE :type ESCAPE '/' AND {DELIVERED}
""",
    # The plus sign prevents the index on delivered_at, with which SQLite would sort for every page.
    "page": PAGE.format(delivered_at="+h.delivered_at", which=DELIVERED),
    "count": COUNT.format(which=DELIVERED),
    "page_of_named": PAGE.format(delivered_at="+h.delivered_at", which=_NAMED),
    "count_named": COUNT.format(which=_NAMED),
    "bring_back": f"""
INSERT INTO outbox_message (id, position, {COLUMNS}, headers, created_at, state, generation)
SELECT h.id, h.position, {OLD}, h.headers, h.created_at, 'held', :generation
FROM {_HISTORY} WHERE true
ON CONFLICT DO NOTHING
""",
    "write_anew": f"""
INSERT INTO outbox_message (id, {COLUMNS}, headers, state)
SELECT p.value ->> 2, {OLD},
       json_patch(h.headers, json_object('{REPLAY_OF}', h.id)), 'held'
FROM {_HISTORY} ORDER BY h.position
""",
}
