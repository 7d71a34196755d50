"""Scan the deliveries for those that no other statement would ever move (see `connection`)."""

from __future__ import annotations

from relay.databases.sqlite.sql.connection import NOW
from relay.databases.store.contract import SETTLED_S
from relay.databases.store.state_lists import FINAL, UNTAKEN

ROWS = 1_000  # the rows of one slice

# No index: a slice is a part of the table itself, in the order of its rows.
SLICE_END = f"""
SELECT max(rowid), count(*) FROM (
    SELECT rowid FROM outbox_delivery NOT INDEXED WHERE rowid > :at ORDER BY rowid LIMIT {ROWS})
"""
_SLICE = "outbox_delivery NOT INDEXED WHERE rowid > :at AND rowid <= :until"

HOLDS_KEYS = f"""
SELECT EXISTS (SELECT 1 FROM {_SLICE} AND ordering_key IS NOT NULL AND state NOT IN ({FINAL}))
"""

# Then outbox_delivery_key, one descent per destination and key in the slice: no open delivery may come before its first
# blocked one.
ORPHANS = f"""
SELECT b.rowid FROM (
    SELECT rowid, destination, ordering_key, min(position) AS position FROM {_SLICE} AND state = 'blocked'
      AND shard IN (SELECT value FROM json_each(:shards))
      AND (shard IN (SELECT value FROM json_each(:fresh))
           OR changed_at < strftime('%Y-%m-%d %H:%M:%f', 'now', '-{SETTLED_S} seconds'))
    GROUP BY destination, ordering_key
) AS b WHERE NOT EXISTS (
    SELECT 1 FROM outbox_delivery AS h
    WHERE h.ordering_key = b.ordering_key AND h.destination = b.destination AND h.position < b.position
      AND h.state <> 'delivered' AND h.state NOT IN ({UNTAKEN})
      AND NOT (h.state = 'dead' AND h.destination IN (SELECT value FROM json_each(:skipping))))
"""
RELEASE = f"""
UPDATE outbox_delivery SET state = 'parked', changed_at = {NOW}
WHERE rowid IN (SELECT value FROM json_each(:orphans)) AND state = 'blocked' RETURNING destination, shard, position
"""

# Retries that were written before the clock was set back: their time may be years away.
MISDATED = f"""
SELECT rowid FROM {_SLICE} AND state = 'retry'
  AND changed_at > strftime('%Y-%m-%d %H:%M:%f', 'now', '+{SETTLED_S} seconds')
"""
MAKE_DUE = f"""
UPDATE outbox_delivery SET due_at = {NOW}, changed_at = {NOW}
WHERE rowid IN (SELECT value FROM json_each(:rowids)) AND state = 'retry'
"""

# Then outbox_message's id and outbox_delivery's primary key. A delivered row with a reason may belong to a message that
# could not be finished (see `relay.owner.settler`).
DISCARDED = f"""
SELECT d.message_id, d.destination FROM (SELECT message_id, destination, state, reason FROM {_SLICE}) AS d
WHERE d.state IN ({FINAL}) AND (d.state <> 'delivered' OR d.reason IS NOT NULL)
  AND EXISTS (SELECT 1 FROM outbox_message AS m WHERE m.id = d.message_id)
  AND NOT EXISTS (SELECT 1 FROM outbox_delivery AS s
                  WHERE s.message_id = d.message_id AND s.state NOT IN ({FINAL}))
"""
