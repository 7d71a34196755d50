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


def fingerprint(reason: str | None) -> str | None:
    """Return a hash that is equal for failures of one cause: of the reason without numbers, ids and quoted values."""
    if reason is None:
        return None
    plain = re.sub(r"[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|0x[0-9a-fA-F]+|\d+|'[^']*'|\"[^\"]*\"", "?", reason)
    return blake2s(plain.encode(), digest_size=6).hexdigest()
