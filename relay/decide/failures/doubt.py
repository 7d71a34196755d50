"""Choose the next message for a destination in doubt: one unlike those that failed.

Bad messages are often adjacent: the oldest and the newest may all be bad while those between them are good.
"""

from __future__ import annotations

NEWEST = 1.0


def place_in_doubt(attempt: int) -> float | None:
    """Return the place of the message to try next among the untried messages: 0 is the oldest, 1 the newest.

    Of four attempts in doubt, one uses the newest message, one is chosen as if there were no doubt (``None``), and two
    use the messages at 1/2, 1/4, 3/4, 1/8, ... of the queue. The first 2/f members of that sequence meet each run of
    messages that is a share f of all.

    Args:
        attempt: The number of this attempt since the doubt began, from 1; 0 if there is no doubt.
    """
    if attempt == 0 or attempt % 4 == 3:
        return None
    return NEWEST if attempt % 4 == 1 else halfway(attempt // 2)


def halfway(n: int) -> float:
    """Return the n-th member of the sequence 1/2, 1/4, 3/4, 1/8, 5/8, ...: the bits of n, mirrored at the point."""
    return int(f"{n:b}"[::-1], 2) / (1 << n.bit_length())
