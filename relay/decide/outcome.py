"""The outcome of one attempt: a value, never an exception.

| outcome     | means                                                     | for example                              |
|-------------|-----------------------------------------------------------|------------------------------------------|
| taken       | the destination has it                                    | 2xx, a confirm, a committed listener     |
| refused     | it will never take *this* message                         | 400, 413, 415, 422, `Reject`             |
| busy        | it is still working on this very message                  | 409, 425                                 |
| failed      | it is alive, and did not take it                          | 500, a listener that raises              |
| unanswered  | it did not take it, and may be dead for all that is known | a timeout, 503, 404, an `OSError`        |
| unreachable | no message could have got through                         | connection refused, DNS, TLS, 401        |
| throttled   | it asks all senders to wait                               | 429, 503 with Retry-After                |
| gone        | it does not want anything any more                        | 410                                      |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2s
from typing import Literal

Kind = Literal["taken", "refused", "busy", "failed", "unanswered", "unreachable", "throttled", "gone"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one attempt.

    Args:
        kind: One of the table above.
        reason: A sentence for people, without secrets; empty when taken.
        detail: What the other side said, truncated.
        retry_after_s: The wait that it asked for, in seconds.
    """

    kind: Kind
    reason: str = ""
    detail: str = ""
    retry_after_s: float | None = None


TAKEN = Outcome("taken")


def refused(reason: str, detail: str = "") -> Outcome:
    return Outcome("refused", reason, detail)


def busy(reason: str, detail: str = "", retry_after_s: float | None = None) -> Outcome:
    return Outcome("busy", reason, detail, retry_after_s)


def failed(reason: str, detail: str = "") -> Outcome:
    return Outcome("failed", reason, detail)


def unanswered(reason: str, detail: str = "") -> Outcome:
    return Outcome("unanswered", reason, detail)


def unreachable(reason: str, detail: str = "") -> Outcome:
    return Outcome("unreachable", reason, detail)


def throttled(reason: str, retry_after_s: float, detail: str = "") -> Outcome:
    return Outcome("throttled", reason, detail, retry_after_s)


def gone(reason: str, detail: str = "") -> Outcome:
    return Outcome("gone", reason, detail)


# Ids, numbers and quoted values, which vary between failures of one cause; the status of an HTTP answer does not.
_VARYING = re.compile(
    r"(?<!\w)(?:[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|0x[0-9a-fA-F]+|[0-9a-fA-F]{16,})(?!\w)"
    r"|(?<!answered )(?<!HTTP )(?<!\d)\d+(?:[.:,-]\d+)*|'[^']*'|\"[^\"]*\""
)
CAUSE_LENGTH = 80


def _plain(reason: str) -> str:
    return _VARYING.sub("…", reason)


def fingerprint(reason: str | None) -> str | None:
    """Return a hash that is equal for failures of one cause: of the reason without numbers, ids and quoted values."""
    return None if reason is None else blake2s(_plain(reason).encode(), digest_size=6).hexdigest()


def cause_of(reason: str) -> str:
    """Return the cause of a failure, for people and in few characters: the reason without what varies.

    Example:
        >>> cause_of("answered 422 Unprocessable Content: no order 'o-17' in 48213")
        'answered 422 Unprocessable Content: no order … in …'
    """
    plain = " ".join(_plain(reason[: 4 * CAUSE_LENGTH]).split())
    return plain if len(plain) <= CAUSE_LENGTH else plain[: CAUSE_LENGTH - 1].rstrip() + "…"
