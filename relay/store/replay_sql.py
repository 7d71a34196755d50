"""Bring messages back from the history, on both databases.

Only the kind of the parameters differs: arrays on PostgreSQL, JSON on SQLite.
"""

from __future__ import annotations

from relay.store.state_lists import FINAL, UNTAKEN

COLUMNS = "type, source, subject, ordering_key, data"
OLD = ", ".join("h." + column for column in COLUMNS.split(", "))
REPLAY_OF = "outbox-replay-of"

# Messages that operators gave up everywhere, or that expired, are in the history without a delivery; a message that
# they gave up for this destination must not go there. A message that is named is sent all the same.
_DELIVERED = f"""h.outcome IS NULL
  AND coalesce(h.deliveries -> CAST(:to AS text) ->> 'state', '') NOT IN ({UNTAKEN})"""

# Index: outbox_history_id, in its order: each page continues where the last one ended, so there is one pass in all. Of
# several entries of one message, from earlier replays, the last one counts.
_PAGE = """
SELECT h.id, max(h.delivered_at) FROM outbox_history AS h
WHERE {delivered_at} >= :since AND {delivered_at} < :until AND h.type LIKE :type ESCAPE '/' AND h.id > :after
  AND {which}
GROUP BY h.id ORDER BY h.id LIMIT :limit
"""
_COUNT = """
SELECT h.type, count(DISTINCT h.id) AS count, min(h.delivered_at) AS first_at, max(h.delivered_at) AS last_at,
       count(DISTINCT h.id) FILTER (WHERE EXISTS (
           SELECT 1 FROM inbox_message AS i WHERE i.listener = :to AND i.message_id = CAST(h.id AS text))) AS marked
FROM outbox_history AS h
WHERE h.delivered_at >= :since AND h.delivered_at < :until AND h.type LIKE :type ESCAPE '/'
  AND {which}
GROUP BY h.type ORDER BY 2 DESC, 1
"""
# No row is read.
_ESTIMATE = """EXPLAIN (FORMAT JSON) SELECT FROM outbox_history AS h
WHERE h.delivered_at >= :since AND h.delivered_at < :until AND h.type LIKE :type ESCAPE '/'
"""
_DELIVER = """
INSERT INTO outbox_delivery AS d (message_id, destination, shard, position, ordering_key, state, generation, txid)
SELECT m.id, :to, m.shard, m.position, m.ordering_key, 'parked', :generation, {txid}
FROM {ids} JOIN outbox_message AS m ON m.id = {id} WHERE m.state = 'held'
ON CONFLICT (message_id, destination) DO UPDATE SET
    state = 'parked', generation = excluded.generation, attempts = 0, first_failed_at = NULL,
    changed_at = {now}, txid = excluded.txid
WHERE d.state IN ({final})
"""

# ---------------------------------------------------------------- PostgreSQL

_PG_PICKED = "unnest(CAST(:ids AS uuid[]), CAST(:ats AS timestamptz[]), CAST(:news AS uuid[])) AS p (id, at, new_id)"
_PG_HISTORY = f"{_PG_PICKED} JOIN outbox_history AS h ON h.id = p.id AND h.delivered_at = p.at"

_PG_NAMED = "h.id = ANY (CAST(:named AS uuid[]))"

POSTGRES = {
    "page": _PAGE.format(delivered_at="h.delivered_at", which=_DELIVERED),
    "count": _COUNT.format(which=_DELIVERED),
    "estimate": _ESTIMATE,
    "page_of_named": _PAGE.format(delivered_at="h.delivered_at", which=_PG_NAMED),
    "count_named": _COUNT.format(which=_PG_NAMED),
    # At its old position, so it goes before the messages that wait behind it in its key.
    "bring_back": f"""
INSERT INTO outbox_message (id, position, {COLUMNS}, headers, created_at, state, generation) OVERRIDING SYSTEM VALUE
SELECT h.id, h.position, {OLD}, h.headers, h.created_at, 'held', :generation
FROM {_PG_HISTORY}
ON CONFLICT (id) DO NOTHING
""",
    "write_anew": f"""
INSERT INTO outbox_message (id, {COLUMNS}, headers, state)
SELECT p.new_id, {OLD},
       (h.headers::jsonb || jsonb_build_object('{REPLAY_OF}', h.id::text))::json, 'held'
FROM {_PG_HISTORY} ORDER BY h.position
""",
    # In the order of ids, in which owners lock messages; a message that an owner has just moved is not found.
    "lock": """
SELECT m.id FROM unnest(CAST(:ids AS uuid[])) AS p (id) JOIN outbox_message AS m ON m.id = p.id
ORDER BY m.id FOR UPDATE OF m
""",
    "deliver": _DELIVER.format(
        txid="pg_current_xact_id()",
        final=FINAL,
        ids="unnest(CAST(:ids AS uuid[])) AS p (id)",
        id="p.id",
        now="clock_timestamp()",
    ),
}

# -------------------------------------------------------------------- SQLite

_SQLITE_HISTORY = """json_each(:picked) AS p
JOIN outbox_history AS h ON h.id = p.value ->> 0 AND h.delivered_at = p.value ->> 1"""

_SQLITE_NAMED = "h.id IN (SELECT value FROM json_each(:named))"

SQLITE = {
    # Index: outbox_history_delivered. Rows are written in the order in which they are settled.
    "ends": """
SELECT coalesce((SELECT rowid FROM outbox_history WHERE delivered_at >= :since ORDER BY delivered_at LIMIT 1), 0),
       coalesce((SELECT rowid FROM outbox_history WHERE delivered_at < :until ORDER BY delivered_at DESC LIMIT 1), -1)
""",
    # The rows of some short windows of rowids.
    "sampled": f"""
SELECT count(*) FROM json_each(:starts) AS w
CROSS JOIN outbox_history AS h ON h.rowid >= w.value AND h.rowid < w.value + :width
WHERE h.delivered_at >= :since AND h.delivered_at < :until AND h.type LIKE :type ESCAPE '/' AND {_DELIVERED}
""",
    # The plus sign prevents the index on delivered_at, with which SQLite would sort for every page.
    "page": _PAGE.format(delivered_at="+h.delivered_at", which=_DELIVERED),
    "count": _COUNT.format(which=_DELIVERED),
    "page_of_named": _PAGE.format(delivered_at="+h.delivered_at", which=_SQLITE_NAMED),
    "count_named": _COUNT.format(which=_SQLITE_NAMED),
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
        txid=":txid",
        final=FINAL,
        ids="json_each(:ids) AS p",
        id="p.value",
        now="strftime('%Y-%m-%d %H:%M:%f', 'now')",
    ),
}
