"""What several statements say.

Writers come one after another, so positions commit in order and a cursor misses nothing that is new. What an operator
puts back below the cursor carries a `txid` above every one before. Settled rows are gone at once: there is no
vacuum to wait for, and no left edge to avoid.
"""

from __future__ import annotations

NOW = "strftime('%Y-%m-%d %H:%M:%f', 'now')"

# Index: outbox_destination_generation. A relay that does not know of the destinations that are registered by now leaves
# messages to those that do.
IS_REGISTERED = "NOT EXISTS (SELECT 1 FROM outbox_destination WHERE generation > :registered)"
