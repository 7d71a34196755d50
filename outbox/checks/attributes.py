"""Checks of the attributes of a message beside its data, for every database and wire."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from outbox.checks.payload import is_storable
from outbox.errors import InvalidDelay, InvalidHeaders, InvalidOrderingKey, InvalidSource, InvalidSubject

MAX_KEY_LENGTH = 255
MAX_SUBJECT_LENGTH = 1024
MAX_HEADER_BYTES = 8000  # a name and its value: common receivers refuse header lines longer than about 8 KiB
MAX_SOURCE_LENGTH = 255
MAX_HEADERS_BYTES = 8 * 1024
MAX_DELAY = timedelta(days=3660)
EARLIEST, LATEST = datetime(2, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)  # a valid date in every time zone

RESERVED_PREFIXES = ("ce-", "cloudevents", "webhook-", "x-forwarded-")
# fmt: off
RESERVED_NAMES = frozenset((
    "accept", "accept-encoding", "authorization", "connection", "content-encoding", "content-length",
    "content-type", "cookie", "date", "expect", "host", "idempotency-key", "keep-alive", "proxy-authorization",
    "proxy-connection", "te", "traceparent", "tracestate", "trailer", "transfer-encoding", "upgrade", "user-agent",
    "x-internal-secret",
    # headers that receivers trust because their proxy sets them
    "cf-connecting-ip", "client-ip", "fastly-client-ip", "forwarded", "proxy", "remote-user", "true-client-ip", "via",
    "x-client-ip", "x-cluster-client-ip", "x-forwarded", "x-host", "x-http-host-override", "x-http-method",
    "x-http-method-override", "x-method-override", "x-original-host", "x-original-method", "x-original-uri",
    "x-original-url", "x-real-ip", "x-remote-addr", "x-remote-user", "x-rewrite-url",
    # headers by which RabbitMQ copies a message to other queues
    "bcc", "cc",
))
# fmt: on

HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110's token
_SIGN = re.compile(r"[^a-z0-9]")
HEADER_VALUE = re.compile(r"[\t -~]*")
_SOURCE = re.compile(r"[!-~]+")


def checked_key(key: str | None) -> str | None:
    """Return an ordering key, if it has 1 to 255 characters that a database can store.

    Raises:
        InvalidOrderingKey: The key cannot be stored.
    """
    if key is None or (isinstance(key, str) and 0 < len(key) <= MAX_KEY_LENGTH and is_storable(key)):
        return key
    raise InvalidOrderingKey(
        f"the ordering key {ascii(key)[:60]} cannot be stored: pass 1 to {MAX_KEY_LENGTH} characters without NUL or "
        "lone surrogates, or None for a message that follows no other"
    )


def checked_subject(subject: str | None) -> str | None:
    """Return a subject, if it has 1 to 1,024 characters and a header can hold its percent-encoded form.

    Raises:
        InvalidSubject: The subject cannot be stored or sent.
    """
    if subject is None or (
        isinstance(subject, str) and 0 < len(subject) <= MAX_SUBJECT_LENGTH and is_storable(subject)
    ):
        if subject is not None and not subject.isascii():
            _check_encoded(subject)
        return subject
    raise InvalidSubject(
        f"the subject {ascii(subject)[:60]} cannot be stored: pass 1 to {MAX_SUBJECT_LENGTH:,} characters without NUL "
        "or lone surrogates, or None"
    )


def _check_encoded(subject: str) -> None:
    encoded = len(quote(subject))
    if encoded > MAX_HEADER_BYTES:
        raise InvalidSubject(
            f"the subject {ascii(subject)[:60]} takes {encoded:,} bytes in a header: pass one that takes "
            f"{MAX_HEADER_BYTES:,} at most, and put the rest into the data"
        )


def checked_source(source: str) -> str:
    """Return a source, if it is a URI reference of 1 to 255 characters.

    Raises:
        InvalidSource: The source is not a URI reference.

    Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md#source-1
    """
    if isinstance(source, str) and len(source) <= MAX_SOURCE_LENGTH and _SOURCE.fullmatch(source):
        return source
    raise InvalidSource(
        f"the source {ascii(source)[:60]} is not a URI reference: pass 1 to {MAX_SOURCE_LENGTH} printable ASCII "
        "characters without spaces, as in /workers/extraction"
    )


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return a producer's own headers, if they map text to text, fit HTTP and AMQP, and take at most 8 KiB together.

    Args:
        headers: At least one.

    Raises:
        InvalidHeaders: A header is malformed, too long, or has a name that the delivery or the wire reserves.
    """
    if not isinstance(headers, Mapping):
        raise InvalidHeaders(f"headers are {type(headers).__name__}: pass a mapping of text to text")
    checked = {_checked_name(name): _checked_value(name, value) for name, value in headers.items()}
    if len({name.lower() for name in checked}) < len(checked):
        raise InvalidHeaders("two headers differ only in upper and lower case, which no wire distinguishes: drop one")
    sizes = {name: len(name) + len(value) for name, value in checked.items()}
    if max(sizes.values()) > MAX_HEADER_BYTES:
        raise InvalidHeaders(
            f"the header {max(sizes, key=sizes.__getitem__)!r} is longer than {MAX_HEADER_BYTES:,} bytes: move it to "
            "the data"
        )
    if sum(sizes.values()) > MAX_HEADERS_BYTES:
        raise InvalidHeaders(f"the headers are longer than {MAX_HEADERS_BYTES:,} bytes together: move some to the data")
    return checked


def is_reserved(name: str) -> bool:
    """Return whether a receiver could mistake this header for one that the delivery or a proxy sets.

    WSGI, CGI and some proxies do not distinguish ``X_Internal_Secret`` and ``X.Internal.Secret`` from
    ``X-Internal-Secret``.
    """
    known = _SIGN.sub("-", name.lower())
    return known in RESERVED_NAMES or known.startswith(RESERVED_PREFIXES)


def _checked_name(name: str) -> str:
    if not isinstance(name, str) or not HEADER_NAME.fullmatch(name):
        raise InvalidHeaders(f"{ascii(name)[:60]} is not a header name: use letters, digits and -, as in x-tenant")
    if is_reserved(name):
        raise InvalidHeaders(f"the header {name!r} is set by the delivery or by proxies: choose a name of your own")
    return name


def _checked_value(name: str, value: str) -> str:
    if isinstance(value, str) and HEADER_VALUE.fullmatch(value):
        return value
    raise InvalidHeaders(
        f"the header {name!r} holds a value that HTTP cannot carry: pass printable ASCII text on one line, "
        "percent-encoded where necessary (urllib.parse.quote)"
    )


def checked_delay(delay: timedelta | float | None, due_at: datetime | None) -> tuple[float | None, datetime | None]:
    """Return when a message becomes due: seconds from now by the database's clock, or an instant in UTC; or neither.

    Raises:
        InvalidDelay: Both are given, or one is naive, negative, or too far away.
    """
    if delay is not None and due_at is not None:
        raise InvalidDelay("delay and due_at are both given: pass one of them")
    if due_at is not None:
        return None, _checked_instant(due_at)
    return (_checked_seconds(delay) or None) if delay is not None else None, None


def checked_expiry(
    expires_in: timedelta | float, delay_s: float | None, due_at: datetime | None
) -> tuple[float | None, datetime | None]:
    """Return when a message expires: seconds from now by the database's clock, or an instant in UTC.

    Args:
        expires_in: How long the message stays deliverable after it was written or became due, in seconds.
        delay_s: How long after now it becomes due, in seconds, as `checked_delay` returns it.
        due_at: The instant at which it becomes due, as `checked_delay` returns it.

    Raises:
        InvalidDelay: ``expires_in`` is not a length of time, not above 0, or too long.
    """
    seconds = _checked_seconds(expires_in, "expires_in")
    if seconds <= 0:
        raise InvalidDelay(f"expires_in is {expires_in}: pass a time above 0, or leave it out if it never expires")
    if due_at is None:
        return (delay_s or 0.0) + seconds, None
    if seconds >= (LATEST - due_at).total_seconds():
        raise InvalidDelay(f"expires_in ({expires_in}) after {due_at} is after the year {LATEST.year}: leave it out")
    return None, due_at + timedelta(seconds=seconds)


def _checked_seconds(delay: timedelta | float, what: str = "the delay") -> float:
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds):
        raise InvalidDelay(f"{what} {ascii(delay)[:60]} is not a length of time: pass a timedelta, or seconds")
    if not 0 <= seconds <= MAX_DELAY.total_seconds():
        raise InvalidDelay(f"{what} {delay} is outside 0 to {MAX_DELAY.days:,} days: pass a timedelta, or seconds")
    return float(seconds)


def _checked_instant(due_at: datetime) -> datetime:
    if not isinstance(due_at, datetime) or due_at.utcoffset() is None:
        raise InvalidDelay(
            f"due_at is {ascii(due_at)[:60]}: pass a datetime with a time zone, "
            "as in datetime.now(UTC) + timedelta(hours=1)"
        )
    try:
        instant = due_at.astimezone(UTC)
    except OverflowError:
        instant = due_at.replace(tzinfo=UTC)
    if not EARLIEST < instant < LATEST:
        raise InvalidDelay(f"due_at is {due_at}: pass one between the years {EARLIEST.year} and {LATEST.year}")
    return instant
