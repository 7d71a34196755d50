"""What an answer of Redis means for a message."""

from __future__ import annotations

from redis import exceptions as redis

from relay.decide.outcome import TAKEN, Outcome, failed, unreachable
from relay.observe.logging import one_line, redacted

# No message gets past these, whichever it is. https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors
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
        answer: What the command returned, or raised.
        shares_a_stream: Whether all messages go to the same stream, so that what is wrong with it is wrong for all.
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
    """Whether it is the stream that is wrong: no permission for it, or its key holds something else."""
    return isinstance(error, redis.NoPermissionError) or reason.startswith("WRONGTYPE")
