"""Bringing messages back from the history, on both databases.

The parameters differ in their kind only: arrays on PostgreSQL, JSON on SQLite.
"""

from __future__ import annotations

COLUMNS = "type, source, subject, ordering_key, data"
OLD = ", ".join("h." + column for column in COLUMNS.split(", "))
REPLAY_OF = "outbox-replay-of"

# What operators discarded everywhere is in the history, too, and was delivered to nobody; what they discarded for this
# destination it was never to get. The two databases write JSON with and without the blank.
_DELIVERED = """(h.deliveries IS NULL OR CAST(h.deliveries AS text) LIKE '%"state": "delivered"%'
       OR CAST(h.deliveries AS text) LIKE '%"state":"delivered"%')
  AND coalesce(h.deliveries -> CAST(:to AS text) ->> 'state', '') <> 'discarded'"""

# Index: outbox_history_id, in its order, so that each page goes on where the last one ended: one pass however many they
# are. Of what is there several times, because it was replayed before, the last.
_PAGE = f"""
SELECT h.id, max(h.delivered_at) FROM outbox_history AS h
WHERE {{delivered_at}} >= :since AND {{delivered_at}} < :until AND h.type LIKE :type ESCAPE '/' AND h.id > :after
  AND {_DELIVERED}
GROUP BY h.id ORDER BY h.id LIMIT :limit
"""
_COUNT = f"""
SELECT h.type, count(DISTINCT h.id) AS count, min(h.delivered_at) AS first_at, max(h.delivered_at) AS last_at,
       count(DISTINCT h.id) FILTER (WHERE EXISTS (
           SELECT 1 FROM inbox_message AS i WHERE i.listener = :to AND i.message_id = CAST(h.id AS text))) AS marked
FROM outbox_history AS h
WHERE h.delivered_at >= :since AND h.delivered_at < :until AND h.type LIKE :type ESCAPE '/'
  AND {_DELIVERED}
GROUP BY h.type ORDER BY 2 DESC, 1
"""
_DELIVER = """
INSERT INTO outbox_delivery AS d (message_id, destination, shard, position, ordering_key, state, generation, txid)
SELECT m.id, :to, m.shard, m.position, m.ordering_key, 'parked', :generation, {stamp}
FROM {ids} JOIN outbox_message AS m ON m.id = {id} WHERE m.state = 'held'
ON CONFLICT (message_id, destination) DO UPDATE SET
    state = 'parked', generation = excluded.generation, attempts = 0, first_failed_at = NULL,
    changed_at = {now}, txid = excluded.txid
WHERE d.state IN ('delivered', 'discarded')
"""

# ---------------------------------------------------------------- PostgreSQL

# A page is small beside its tables, and what has just filled up was never analysed: look each row up.
BY_INDEX = """
SELECT set_config('enable_' || way, 'off', true)
FROM unnest(ARRAY['seqscan', 'bitmapscan', 'hashjoin', 'mergejoin']) AS way
"""

_PG_PICKED = "unnest(CAST(:ids AS uuid[]), CAST(:ats AS timestamptz[]), CAST(:news AS uuid[])) AS p (id, at, new_id)"
_PG_HISTORY = f"{_PG_PICKED} JOIN outbox_history AS h ON h.id = p.id AND h.delivered_at = p.at"

POSTGRES = {
    "page": _PAGE.format(delivered_at="h.delivered_at"),
    "count": _COUNT,
    # At its old place, so that it comes before what waits behind it in its key.
    "bring_back": f"""
INSERT INTO outbox_message (id, position, {COLUMNS}, headers, created_at, state, generation) OVERRIDING SYSTEM VALUE
SELECT h.id, h.position, {OLD}, h.headers, h.created_at, 'held', :generation
FROM {_PG_HISTORY}
ON CONFLICT (id) DO NOTHING
""",
    "write_anew": f"""
INSERT INTO outbox_message (id, {COLUMNS}, headers, state)
SELECT p.new_id, {OLD},
       h.headers || jsonb_build_object('{REPLAY_OF}', h.id::text), 'held'
FROM {_PG_HISTORY} ORDER BY h.position
""",
    # In id order, as owners lock what is held; what an owner has just moved to history is not found.
    "lock": """
SELECT m.id FROM unnest(CAST(:ids AS uuid[])) AS p (id) JOIN outbox_message AS m ON m.id = p.id
ORDER BY m.id FOR UPDATE OF m
""",
    "deliver": _DELIVER.format(
        stamp="pg_current_xact_id()",
        ids="unnest(CAST(:ids AS uuid[])) AS p (id)",
        id="p.id",
        now="clock_timestamp()",
    ),
}

# -------------------------------------------------------------------- SQLite

_SQLITE_HISTORY = """json_each(:picked) AS p
JOIN outbox_history AS h ON h.id = p.value ->> 0 AND h.delivered_at = p.value ->> 1"""

SQLITE = {
    # The plus sign keeps SQLite from the index on delivered_at, for which it would have to sort at every page.
    "page": _PAGE.format(delivered_at="+h.delivered_at"),
    "count": _COUNT,
    "bring_back": f"""
INSERT INTO outbox_message (id, position, {COLUMNS}, headers, created_at, state, generation)
SELECT h.id, h.position, {OLD}, h.headers, h.created_at, 'held', :generation
FROM {_SQLITE_HISTORY} WHERE true
ON CONFLICT DO NOTHING
""",
    "write_anew": f"""
INSERT INTO outbox_message (id, {COLUMNS}, headers, state)
SELECT p.value ->> 2, {OLD},
       json_patch(h.headers, json_object('{REPLAY_OF}', h.id)), 'held'
FROM {_SQLITE_HISTORY} ORDER BY h.position
""",
    "lock": "SELECT m.id FROM json_each(:ids) AS p JOIN outbox_message AS m ON m.id = p.value",
    "deliver": _DELIVER.format(
        stamp=":stamp",
        ids="json_each(:ids) AS p",
        id="p.value",
        now="strftime('%Y-%m-%d %H:%M:%f', 'now')",
    ),
}
