"""Expressions that several statements share.

Writers take turns, so positions commit in order and a cursor misses no new row. A row that an operator puts back below
the cursor has a `txid` above all earlier ones. Settled rows disappear at once: there is no vacuum, and no left edge to
avoid.
"""

from __future__ import annotations

NOW = "strftime('%Y-%m-%d %H:%M:%f', 'now')"

# Index: outbox_destination_generation. A relay that does not know the currently registered destinations leaves messages
# to relays that do.
IS_REGISTERED = "NOT EXISTS (SELECT 1 FROM outbox_destination WHERE generation > :registered)"
