"""Translate an answer of Redis to an outcome."""

from __future__ import annotations

from redis import exceptions as redis

from relay.decide.outcome import TAKEN, Outcome, failed, unanswered, unreachable
from relay.observe.logging import one_line, redacted

# These affect every message. https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors
STANDS_STILL = (
    "LOADING",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "MISCONF",
    "NOREPLICAS",
    "READONLY",
    "OOM",
    "NOAUTH",
    "WRONGPASS",
    "BUSY",
)
FOR_ALL = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.OutOfMemoryError,
    redis.ReadOnlyError,
    redis.ClusterDownError,
    redis.MovedError,
    OSError,
)


def judge(answer: object) -> Outcome:
    """Return the outcome for a message, from the command's result or its error."""
    if not isinstance(answer, Exception):
        return TAKEN
    reason = explained(answer)
    if isinstance(answer, FOR_ALL) or reason.startswith(STANDS_STILL):
        return unreachable(reason)
    if isinstance(answer, redis.NoPermissionError) or reason.startswith("WRONGTYPE"):
        return unanswered(reason)  # the stream is at fault, and it may be the only one
    return failed(reason)


def explained(error: BaseException) -> str:
    """Return a sentence for people, on one line and without a secret."""
    said = one_line(redacted(str(error)))
    return said if isinstance(error, redis.ResponseError) and said else f"{type(error).__name__}: {said}".rstrip(": ")
