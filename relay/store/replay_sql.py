"""Bring messages back from the history, on both databases.

Only the kind of the parameters differs: arrays on PostgreSQL, JSON on SQLite.
"""

from __future__ import annotations

from relay.store.state_lists import UNTAKEN

COLUMNS = "type, source, subject, ordering_key, data"
OLD = ", ".join("h." + column for column in COLUMNS.split(", "))
REPLAY_OF = "outbox-replay-of"

# Messages that operators gave up everywhere, or that expired, are in the history without a delivery; a message that
# they gave up for this destination must not go there. A message that is named is sent all the same.
DELIVERED = f"""h.outcome IS NULL
  AND coalesce(h.deliveries -> CAST(:to AS text) ->> 'state', '') NOT IN ({UNTAKEN})"""

# Index: outbox_history_id, in its order: each page continues where the last one ended, so there is one pass in all. Of
# several entries of one message, from earlier replays, the last one counts.
PAGE = """
SELECT h.id, max(h.delivered_at) FROM outbox_history AS h
WHERE {delivered_at} >= :since AND {delivered_at} < :until AND h.type LIKE :type ESCAPE '/' AND h.id > :after
  AND {which}
GROUP BY h.id ORDER BY h.id LIMIT :limit
"""
COUNT = """
SELECT h.type, count(DISTINCT h.id) AS count, min(h.delivered_at) AS first_at, max(h.delivered_at) AS last_at,
       count(DISTINCT h.id) FILTER (WHERE EXISTS (
           SELECT 1 FROM inbox_message AS i WHERE i.listener = :to AND i.message_id = CAST(h.id AS text))) AS marked
FROM outbox_history AS h
WHERE h.delivered_at >= :since AND h.delivered_at < :until AND h.type LIKE :type ESCAPE '/'
  AND {which}
GROUP BY h.type ORDER BY 2 DESC, 1
"""
