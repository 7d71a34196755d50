"""The outcomes of deliveries and messages: four words, used in the same sense everywhere.

| state     | a delivery                                  | a message                                                  |
|-----------|---------------------------------------------|------------------------------------------------------------|
| delivered | its destination took it                     | a destination took it                                      |
| cancelled | an operator took it back before it was sent | no destination took it, and an operator cancelled it       |
| discarded | an operator gave a dead letter up           | no destination took it, and an operator gave it up as dead |
| expired   | its time had passed before an attempt began | no destination took it, no operator gave it up, and its    |
|           |                                             | time had passed                                            |

A message that no subscription wanted is cancelled under the destination name ``nobody``.
"""

from __future__ import annotations

from collections.abc import Collection

from relay.decide.verdict import State

NOBODY = "nobody"

# In this order: the first outcome that any delivery has is the message's outcome.
OUTCOMES = (State.DELIVERED, State.CANCELLED, State.DISCARDED, State.EXPIRED)


def outcome(states: Collection[str]) -> str | None:
    """Return the outcome of a message with deliveries in these states; ``None`` while a delivery is not done.

    Example:
        >>> outcome(["discarded", "delivered"]), outcome(["discarded"]), outcome(["dead", "delivered"])
        ('delivered', 'discarded', None)
    """
    if not states or not set(states) <= set(OUTCOMES):
        return None
    return next(each for each in OUTCOMES if each in states)
