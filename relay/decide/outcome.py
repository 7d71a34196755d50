"""The outcome of one attempt: a value, never an exception.

| outcome     | means                                                     | for example                              |
|-------------|-----------------------------------------------------------|------------------------------------------|
| taken       | the destination has the message                           | 2xx, a confirm, a committed listener     |
| refused     | it will never take *this* message                         | 400, 413, 415, 422, `Reject`             |
| busy        | it is still working on this message                       | 409, 425                                 |
| failed      | it is alive, and did not take the message                 | 500, a listener that raises              |
| unanswered  | it did not take the message, and may be dead              | a timeout, 503, 404, an `OSError`        |
| unreachable | no message could have got through                         | connection refused, DNS, TLS, 401        |
| throttled   | it asks all senders to wait                               | 429, 503 with Retry-After                |
| gone        | it does not want anything any more                        | 410                                      |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2s
from typing import Literal, get_args

Kind = Literal["taken", "refused", "busy", "failed", "unanswered", "unreachable", "throttled", "gone"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one attempt.

    Args:
        kind: One of the kinds in the table above.
        reason: A sentence for people, without secrets; empty when taken.
        detail: What the other side said, truncated.
        retry_after_s: The wait that it asked for, in seconds.
    """

    kind: Kind
    reason: str = ""
    detail: str = ""
    retry_after_s: float | None = None


TAKEN = Outcome("taken")
TEXT_LENGTH = 2000
NO_REASON = "it gave no reason"


def checked(given: object) -> Outcome:
    """Return the outcome that a destination returned, in a form that the relay can safely process.

    The reason becomes text that every database can store, and the wait becomes a number.

    Raises:
        TypeError: The destination returned something else.
    """
    if not isinstance(given, Outcome) or given.kind not in get_args(Kind):
        raise TypeError(f"it returned {given!r:.100}, which is not an Outcome")
    if given.kind == "taken":
        return TAKEN
    retry_after_s = given.retry_after_s if isinstance(given.retry_after_s, int | float) else None
    return Outcome(given.kind, storable(given.reason or NO_REASON), storable(given.detail or ""), retry_after_s)


def storable(text: object, codec: str = "utf-8") -> str:
    """Return text from outside in a form that every database can store: short, without NUL and lone surrogates.

    Args:
        text: The text; another object becomes text.
        codec: The characters that the database has; others are escaped.
    """
    whole = str(text)[:TEXT_LENGTH].replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    return whole.encode(codec, "backslashreplace").decode(codec)


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


# Ids, numbers and quoted values vary between failures of one cause; the status of an HTTP answer does not.
_VARYING = re.compile(
    r"(?<!\w)(?:[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|0x[0-9a-fA-F]+|[0-9a-fA-F]{16,})(?!\w)"
    r"|(?<!answered )(?<!HTTP )(?<!\d)\d+(?:[.:,-]\d+)*|'[^']*'|\"[^\"]*\""
)
CAUSE_LENGTH = 80


def _plain(reason: str) -> str:
    return _VARYING.sub("…", reason)


def fingerprint(reason: str | None) -> str | None:
    """Return a hash of the reason without numbers, ids and quoted values: it is equal for failures of one cause."""
    return None if reason is None else blake2s(_plain(reason).encode("utf-8", "replace"), digest_size=6).hexdigest()


def cause_of(reason: str) -> str:
    """Return the cause of a failure as a short text for people: the reason without the parts that vary.

    Example:
        >>> cause_of("answered 422 Unprocessable Content: no order 'o-17' in 48213")
        'answered 422 Unprocessable Content: no order … in …'
    """
    plain = " ".join(_plain(reason[: 4 * CAUSE_LENGTH]).split())
    return plain if len(plain) <= CAUSE_LENGTH else plain[: CAUSE_LENGTH - 1].rstrip() + "…"
