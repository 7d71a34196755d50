"""Translate an answer of Redis to an outcome."""

from __future__ import annotations

from redis import exceptions as redis

from relay.decide.outcome import TAKEN, Outcome, failed, unreachable
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


def judge(answer: object, *, shares_a_stream: bool) -> Outcome:
    """Return the outcome for a message.

    Args:
        answer: The command's result, or its error.
        shares_a_stream: Whether all messages go to the same stream; then a fault of the stream affects all.
    """
    if not isinstance(answer, Exception):
        return TAKEN
    reason = explained(answer)
    if isinstance(answer, FOR_ALL) or reason.startswith(STANDS_STILL):
        return unreachable(reason)
    if shares_a_stream and _is_the_streams(answer, reason):
        return unreachable(reason)
    return failed(reason)


def explained(error: BaseException) -> str:
    """Return a sentence for people, on one line and without a secret."""
    said = one_line(redacted(str(error)))
    return said if isinstance(error, redis.ResponseError) and said else f"{type(error).__name__}: {said}".rstrip(": ")


def _is_the_streams(error: Exception, reason: str) -> bool:
    """Return whether the stream is at fault: no permission for it, or its key holds another type."""
    return isinstance(error, redis.NoPermissionError) or reason.startswith("WRONGTYPE")
