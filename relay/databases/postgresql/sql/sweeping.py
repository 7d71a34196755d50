"""Scan the deliveries for those that no other statement would ever move (see `connection`)."""

from __future__ import annotations

from relay.databases.postgresql.sql.connection import IS_OWNER
from relay.databases.store.contract import SETTLED_S
from relay.databases.store.state_lists import FINAL

# A delivered row with a reason may belong to a message that could not be finished (see `relay.owner.settler`).
_IS_OPEN = "(d.state <> 'delivered' OR d.reason IS NOT NULL)"
PAGES = 64  # in one slice: half a MiB, about four thousand rows

# No index: a slice is a range of pages, so its cost depends neither on other rows nor on deleted ones. An index scan
# would pass over the entries of all rows that earlier owners released, which stay there until vacuum. OFFSET 0 is a
# fence: without it the planner may read a whole index. Then outbox_delivery_key, one descent per destination and key in
# the slice: no open delivery may come before its first blocked one. A locked row is being changed by a session that
# releases its key; with SKIP LOCKED, two such writers do not wait for each other. A retry that was written before the
# clock was set back is due now: its own time may be years away.
SWEEP = f"""
WITH slice AS MATERIALIZED (
    SELECT d.message_id, d.destination, d.shard, d.position, d.ordering_key, d.state, d.changed_at FROM (
        SELECT * FROM outbox_delivery AS d WHERE d.ctid >= %(begin)s::tid AND d.ctid < %(end)s::tid OFFSET 0
    ) AS d WHERE d.shard = ANY (%(shards)s::smallint[]) AND {_IS_OPEN} AND {IS_OWNER}
), first AS MATERIALIZED (
    SELECT DISTINCT ON (b.destination, b.ordering_key) b.message_id, b.destination, b.ordering_key, b.position
    FROM slice AS b
    WHERE b.state = 'blocked' AND (b.shard = ANY (%(fresh)s::smallint[])
        OR b.changed_at < clock_timestamp() - {SETTLED_S} * interval '1 second')
    ORDER BY b.destination, b.ordering_key, b.position
), released AS (
    UPDATE outbox_delivery AS d SET state = 'parked', changed_at = clock_timestamp(), txid = pg_current_xact_id()
    FROM (
        SELECT b.message_id, b.destination FROM first AS b
        WHERE NOT EXISTS (
            SELECT FROM outbox_delivery AS h
            WHERE h.ordering_key = b.ordering_key AND h.destination = b.destination AND h.position < b.position
              AND h.state NOT IN ({FINAL})
              AND NOT (h.state = 'dead' AND h.destination = ANY (%(skipping)s::text[])))
        OFFSET 0
    ) AS b
    CROSS JOIN LATERAL (
        SELECT l.ctid AS address FROM outbox_delivery AS l
        WHERE l.message_id = b.message_id AND l.destination = b.destination AND l.state = 'blocked'
        FOR UPDATE SKIP LOCKED
    ) AS l
    WHERE d.ctid = l.address
    RETURNING d.destination, d.shard, d.position, d.txid
), redated AS (
    UPDATE outbox_delivery AS d SET due_at = clock_timestamp(), changed_at = clock_timestamp()
    FROM (
        SELECT s.message_id, s.destination FROM slice AS s
        WHERE s.state = 'retry' AND s.changed_at > clock_timestamp() + {SETTLED_S} * interval '1 second'
        OFFSET 0
    ) AS s
    CROSS JOIN LATERAL (
        SELECT l.ctid AS address FROM outbox_delivery AS l
        WHERE l.message_id = s.message_id AND l.destination = s.destination AND l.due_at > clock_timestamp()
        FOR UPDATE SKIP LOCKED
    ) AS l
    WHERE d.ctid = l.address
), finished AS MATERIALIZED (
    SELECT d.message_id, d.destination FROM slice AS d
    WHERE d.state IN ({FINAL}) AND EXISTS (SELECT FROM outbox_message AS m WHERE m.id = d.message_id OFFSET 0)
      AND NOT EXISTS (SELECT FROM outbox_delivery AS s
                      WHERE s.message_id = d.message_id AND s.state NOT IN ({FINAL}) OFFSET 0)
)
SELECT pg_relation_size('outbox_delivery') / current_setting('block_size')::int,
       EXISTS (SELECT FROM slice WHERE ordering_key IS NOT NULL AND state NOT IN ({FINAL})),
       (SELECT coalesce(jsonb_agg(jsonb_build_array(destination, shard, position, txid::text)), '[]') FROM released),
       (SELECT coalesce(jsonb_agg(jsonb_build_array(message_id, destination)), '[]') FROM finished)
"""
