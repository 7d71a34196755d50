"""Find ready, late, due and parked rows: each statement with its index (see `connection`)."""

from __future__ import annotations

from relay.databases.postgresql.sql.connection import IS_OWNER, IS_REGISTERED
from relay.databases.store.rows import MESSAGE_COLUMNS, PAGE_BYTES
from relay.databases.store.state_lists import GIVEN_UP, UNTAKEN

MESSAGE = ", ".join("tidsend(m.ctid)" if name == "address" else f"m.{name}" for name in MESSAGE_COLUMNS)
# The same columns without values that may be unreadable: types are ASCII, and a key is shown as its bytes.
BARE_MESSAGE = """m.id, m.position, m.shard, m.generation, m.type, '', NULL,
    encode(convert_to(m.ordering_key, getdatabaseencoding()), 'hex'),
    'null', '{}', m.created_at, tidsend(m.ctid), m.expires_at, m.due_at"""
# A session without its locks finds no rows, and the look reports that it does not own.
IS_MINE = f"{IS_OWNER} AND {IS_REGISTERED}"
NEWEST = "SELECT last_value FROM outbox_message_position_seq"
DELIVERY = """d.destination, d.generation, d.attempts,
    coalesce(extract(epoch FROM clock_timestamp() - d.first_failed_at), 0)::float8"""


def _page(columns: str, rows: str, order: str) -> str:
    """Return a page of these rows, bounded in bytes; each row ends with its size and the sum up to it."""
    return f"""
SELECT * FROM (
    SELECT {columns}, m.size, sum(m.size) OVER ({order} ROWS UNBOUNDED PRECEDING) AS bytes FROM {rows}
) AS p WHERE p.bytes - p.size < {PAGE_BYTES}
"""


# Index: outbox_message_ready, one descent per shard.
_DESCENTS = """CROSS JOIN LATERAL (
        SELECT *, ctid FROM outbox_message AS m
        WHERE m.shard = c.shard AND m.position > c.cursor AND m.state = 'ready'
        ORDER BY m.position LIMIT %(per_shard)s
    ) AS m"""
# The running sum limits the page in bytes. It follows the order of the descents, so no sort is needed.
READ_READY = f"""
SELECT {MESSAGE} FROM (
    SELECT m.*, sum(m.size) OVER (ORDER BY c.ordinality ROWS UNBOUNDED PRECEDING) - m.size AS bytes_before
    FROM unnest(%(shards)s::smallint[], %(cursors)s::bigint[]) WITH ORDINALITY AS c (shard, cursor)
    {_DESCENTS}
) AS m
WHERE bytes_before < %(bytes)s AND {IS_MINE} LIMIT %(limit)s
"""
# The sum is a third of the cost of a read. A limit for each message also limits the page: a larger message is read
# without its data.
_READ_SMALL = f"""
SELECT {MESSAGE.replace("m.data", "CASE WHEN m.size <= %(small)s::int THEN m.data END")}
FROM unnest(%(shards)s::smallint[], %(cursors)s::bigint[]) AS c (shard, cursor)
    {_DESCENTS}
WHERE {IS_MINE} LIMIT %(limit)s
"""

# Index: outbox_message_pkey.
READ_ONE = f"SELECT {MESSAGE} FROM outbox_message AS m WHERE m.id = ANY (%(ids)s::uuid[])"

# Rows that have become visible since the last look, by their transaction alone. Rows that were restored from a dump of
# another cluster may have an id in the future; these are not late.
_SINCE = "m.txid >= %(xmax)s::xid8 AND m.txid < pg_snapshot_xmax(pg_current_snapshot())"
_RAN_ON = "m.txid = ANY (%(running)s::xid8[]) AND m.txid < %(xmax)s::xid8"


def _visible_since(table: str, *conditions: str) -> str:
    """Return rows that meet one of the conditions; no row meets two of them.

    OFFSET 0 is a fence: without it the planner may scan another index from its left edge, where settled rows remain
    until vacuum.
    """
    parts = [
        f"SELECT *, ctid FROM {table} AS m WHERE {became_visible} AND {condition}"
        for condition in conditions
        for became_visible in (_SINCE, _RAN_ON)
    ]
    return f"({' UNION ALL '.join(parts)} OFFSET 0)"


# Nearly all rows that became visible are new, not late: no cursor has passed their position, and they are not due. The
# index shows both, so the row itself is not read. `reached` is the highest cursor.
_MESSAGES_SINCE = _visible_since(
    "outbox_message",
    "m.position <= %(reached)s::bigint",
    "m.position > %(reached)s::bigint AND m.due_at <= %(due)s::timestamptz",
)
_DELIVERIES_SINCE = _visible_since("outbox_delivery", "true")

# `floor` is an array over all shards: the cursor, or -1 for a shard of another relay.
_IS_LATE = """
    ((m.state = 'ready' AND m.position <= (%(floor)s::bigint[])[m.shard + 1])
     OR (m.state = 'scheduled' AND m.due_at <= %(due)s::timestamptz AND (%(floor)s::bigint[])[m.shard + 1] >= 0))
"""
# Only the owner writes retries, so it knows them; it also knows the deliveries that it parked itself.
_IS_FOREIGN = f"""
    m.state IN ('parked', {GIVEN_UP}) AND (%(floor)s::bigint[])[m.shard + 1] >= 0 AND m.txid <> ALL (%(own)s::xid8[])
"""

REGISTERED = f"SELECT {IS_REGISTERED}"

FIRST_LOOK = f"SELECT pg_current_snapshot()::text, {IS_OWNER}"

# Indexes: outbox_message_txid, outbox_delivery_txid. Returns the snapshot, whether this session owns, and whether rows
# came late.
LOOK = f"""
SELECT pg_current_snapshot()::text, {IS_OWNER},
       EXISTS (SELECT FROM {_MESSAGES_SINCE} AS m WHERE {_IS_LATE}),
       EXISTS (SELECT FROM {_DELIVERIES_SINCE} AS m WHERE {_IS_FOREIGN})
"""


def _looking_and(read: str) -> str:
    """Return a look and a read in one statement; the first row of the answer is the look.

    On a busy processor, the owning thread loses its turn with each answer that it waits for.
    """
    return f"""
SELECT {", ".join(["NULL"] * len(MESSAGE_COLUMNS))}, concat_ws(' ', l.snapshot, l.mine, l.late, l.elsewhere)
FROM ({LOOK}) AS l (snapshot, mine, late, elsewhere)
UNION ALL (SELECT *, NULL FROM ({read}) AS m)
"""


LOOK_AND_READ = _looking_and(READ_READY)
LOOK_AND_READ_SMALL = _looking_and(_READ_SMALL)

# Index: outbox_message_txid.
READ_LATE = _page(
    MESSAGE, f"(SELECT * FROM {_MESSAGES_SINCE} AS m WHERE {_IS_LATE} AND {IS_MINE} LIMIT %(limit)s) AS m", ""
)

# Index: outbox_message_txid. Used if more rows are late than a page holds.
LATE_FLOOR = f"SELECT m.shard, min(m.position) FROM {_MESSAGES_SINCE} AS m WHERE {_IS_LATE} GROUP BY 1"

# Index: outbox_delivery_txid.
LATE_DELIVERIES = f"""
SELECT m.destination, m.shard, min(m.position) FILTER (WHERE m.state = 'parked'),
       array_agg(m.message_id::text) FILTER (WHERE m.state IN ({GIVEN_UP}))
FROM {_DELIVERIES_SINCE} AS m WHERE {_IS_FOREIGN} GROUP BY 1, 2
"""

_MESSAGE_OF_D = "CROSS JOIN LATERAL (SELECT *, ctid FROM outbox_message AS m WHERE m.id = d.message_id OFFSET 0) AS m"

# Index: outbox_delivery_parked, one descent per destination and shard; then outbox_message_pkey.
READ_PARKED = _page(
    f"{MESSAGE}, {DELIVERY}",
    f"""(
        SELECT d.* FROM
            unnest(%(destinations)s::text[], %(shards)s::smallint[], %(cursors)s::bigint[], %(until)s::bigint[])
                AS c (destination, shard, cursor, until)
            CROSS JOIN LATERAL (
                SELECT * FROM outbox_delivery AS d
                WHERE d.destination = c.destination AND d.shard = c.shard AND d.state = 'parked'
                  AND d.position > c.cursor AND d.position <= c.until
                ORDER BY d.position LIMIT %(limit)s
            ) AS d
        WHERE {IS_OWNER} ORDER BY d.position LIMIT %(limit)s
    ) AS d {_MESSAGE_OF_D}""",
    "ORDER BY d.position",
)

# Index: outbox_message_due, one descent per shard.
READ_SCHEDULED = _page(
    MESSAGE,
    f"""(
        SELECT m.* FROM unnest(%(shards)s::smallint[]) AS c (shard)
        CROSS JOIN LATERAL (
            SELECT *, ctid FROM outbox_message AS m
            WHERE m.shard = c.shard AND m.state = 'scheduled' AND m.due_at <= %(now)s::timestamptz
              AND (m.due_at, m.position) > (%(due)s::timestamptz, %(position)s)
            ORDER BY m.due_at, m.position LIMIT %(limit)s
        ) AS m
        WHERE {IS_MINE} ORDER BY m.due_at, m.position LIMIT %(limit)s
    ) AS m""",
    "ORDER BY m.due_at, m.position",
)

# Index: outbox_delivery_retry, one descent per shard; then outbox_message_pkey.
READ_RETRIES = _page(
    f"{MESSAGE}, {DELIVERY}, d.due_at",
    f"""(
        SELECT d.* FROM unnest(%(shards)s::smallint[]) AS c (shard)
        CROSS JOIN LATERAL (
            SELECT * FROM outbox_delivery AS d
            WHERE d.shard = c.shard AND d.state = 'retry' AND d.due_at <= %(now)s::timestamptz
              AND (d.due_at, d.position, d.destination) > (%(due)s::timestamptz, %(position)s, %(destination)s)
            ORDER BY d.due_at, d.position, d.destination LIMIT %(limit)s
        ) AS d
        WHERE {IS_OWNER} ORDER BY d.due_at, d.position, d.destination LIMIT %(limit)s
    ) AS d {_MESSAGE_OF_D}""",
    "ORDER BY d.due_at, d.position, d.destination",
)

# Index: outbox_delivery_key, one descent per destination and key, no matter how many deliveries wait.
HELD_KEYS = f"""
SELECT n.destination, k.ordering_key, d.position
FROM unnest(%(keys)s::text[]) AS k (ordering_key) CROSS JOIN unnest(%(destinations)s::text[]) AS n (destination)
CROSS JOIN LATERAL (
    SELECT d.position FROM outbox_delivery AS d
    WHERE d.ordering_key = k.ordering_key AND d.destination = n.destination AND d.state <> 'delivered'
      AND d.state NOT IN ({UNTAKEN}) AND NOT (d.state = 'dead' AND n.destination = ANY (%(skipping)s::text[]))
    ORDER BY d.position LIMIT 1
) AS d
"""

# Index: outbox_delivery_key, one descent per destination and key.
BLOCKED_KEYS = """
SELECT k.destination, k.ordering_key, d.position
FROM unnest(%(destinations)s::text[], %(keys)s::text[]) AS k (destination, ordering_key)
CROSS JOIN LATERAL (
    SELECT d.position FROM outbox_delivery AS d
    WHERE d.ordering_key = k.ordering_key AND d.destination = k.destination AND d.state <> 'delivered'
      AND (d.state IN ('blocked', 'retry') OR (d.state = 'dead' AND k.destination <> ALL (%(skipping)s::text[])))
    ORDER BY d.position LIMIT 1
) AS d
"""
