"""Translate an HTTP answer to an outcome: a pure function of status and headers.

| status                        | outcome                                                            |
|-------------------------------|--------------------------------------------------------------------|
| 2xx                           | taken                                                              |
| 400, 413, 415, 422            | refused: the receiver will never take *this* message               |
| 409, 425                      | busy with this message; or 409 taken (`on_409 = "delivered"`)      |
| 401, 407                      | unreachable: the secret is wrong for every message                 |
| 410                           | gone                                                               |
| 429; 503 with a Retry-After   | throttled                                                          |
| 403, 404, 405, 502, 503, 504  | unanswered: a proxy answers like that for an absent receiver, too  |
| a redirect, a broken answer   | unanswered                                                         |
| any other status              | failed: only a living receiver answers like that                   |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from relay.decide.outcome import TAKEN, Outcome, busy, failed, gone, refused, throttled, unanswered, unreachable

REFUSED = (400, 413, 415, 422)
UNANSWERED = (403, 404, 405, 502, 503, 504)
UNAUTHORIZED = 401
LONGEST_DELAY_DIGITS = 10

HINTS = {
    UNAUTHORIZED: "the receiver does not accept our secret",
    404: "is the url right?",
    405: "the url does not accept POST",
    407: "the proxy does not accept our credentials",
}
REDIRECTED = "redirects are not followed: set the url to their target"


@dataclass(slots=True)
class Answer:
    """An answer, as far as it was read.

    Args:
        status: The status code.
        headers: Case-insensitive.
        body: The beginning of the body.
        broke_off: Why the rest of the body did not arrive; ``None`` if the body is complete.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    broke_off: str | None = None

    @property
    def is_success(self) -> bool:
        """Whether it is a complete 2xx answer."""
        return 200 <= self.status < 300 and self.broke_off is None


def judge(answer: Answer, *, on_409: str, now: datetime, detail: str = "") -> Outcome:
    """Return the outcome of an attempt that got an answer.

    Args:
        answer: The answer.
        on_409: ``"delivered"`` if a conflict means that the receiver has the message already; else ``"retry"``.
        now: The time, to compute a Retry-After that names an instant.
        detail: The part of the body to keep, safe to show.
    """
    if answer.is_success:
        return TAKEN
    status = answer.status
    reason = f"answered {status}{_phrase(status)}"
    if 200 <= status < 300:
        return unanswered(f"{reason}, but {answer.broke_off}", detail)
    wait_s = retry_after_s(answer.headers, now)
    match status:
        case 409 if on_409 == "delivered":
            return TAKEN
        case 409 | 425:
            return busy(reason, detail, wait_s)
        case 401 | 407:
            return unreachable(reason, detail)
        case 410:
            return gone(reason, detail)
        case 429:
            return throttled(reason, wait_s or 0.0, detail)
        case 503 if wait_s is not None:
            return throttled(reason, wait_s, detail)
    if status in REFUSED:
        return refused(reason, detail)
    return unanswered(reason, detail) if 300 <= status < 400 or status in UNANSWERED else failed(reason, detail)


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the Retry-After in seconds; ``None`` if it is missing or malformed.

    An instant is compared with the answer's own Date, if there is one, because the two clocks may differ.

    Source: https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:LONGEST_DELAY_DIGITS])
    at = _instant(text)
    if at is None:
        return None
    sent_at = _instant(headers.get("Date", "")) or now
    return max((at - sent_at).total_seconds(), 0.0)


def _instant(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _phrase(status: int) -> str:
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    hint = REDIRECTED if 300 <= status < 400 else HINTS.get(status)
    return f"{phrase} ({hint})" if hint else phrase
