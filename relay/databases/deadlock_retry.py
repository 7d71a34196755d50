"""Repeat a transaction at once if the database ended it in favour of another one.

A deadlock or a serialisation failure is the fault of neither the message nor the destination: the same transaction
usually succeeds a moment later. So it is repeated in place, a few times, after pauses with jitter.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from outbox.errors import Reject
from relay.databases.error_codes import means
from relay.observe.errors import with_causes

CEILINGS_S = (0.02, 0.05, 0.1, 0.2, 0.4)


def is_conflict(error: BaseException) -> bool:
    """Return whether the database ended the transaction in favour of another one; also look at the error's causes."""
    if isinstance(error, Reject):
        return False
    return any(means(each, "CONFLICTS") for each in with_causes(error, even_hidden=True))


def pauses_s() -> Iterator[float]:
    """Yield the pause before each further try, in seconds: half of it is fixed, half is random."""
    for ceiling_s in CEILINGS_S:
        yield ceiling_s * (1 + random.random()) / 2  # noqa: S311
