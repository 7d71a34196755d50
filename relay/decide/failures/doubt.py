"""Which message is tried next at a destination that is in doubt: one that is not like those that failed.

Bad messages often stand next to each other: the oldest and the newest may all be bad, and those between them good.
"""

from __future__ import annotations

NEWEST = 1.0


def place_in_doubt(attempt: int) -> float | None:
    """Return where among the untried messages an attempt takes its own: 0 is the oldest, 1 the newest.

    Of four attempts in doubt, one is at the newest message, one has its turn as without doubt (``None``), and two are
    at 1/2, 1/4, 3/4, 1/8, ... of the way. The first 2/f members of that sequence meet each run of messages that is a
    share f of all.

    Args:
        attempt: Its number since the doubt began, from 1; 0 if there is no doubt.
    """
    if attempt == 0 or attempt % 4 == 3:
        return None
    return NEWEST if attempt % 4 == 1 else halfway(attempt // 2)


def halfway(n: int) -> float:
    """Return the n-th member of the sequence 1/2, 1/4, 3/4, 1/8, 5/8, ...: the bits of n, mirrored at the point."""
    return int(f"{n:b}"[::-1], 2) / (1 << n.bit_length())
