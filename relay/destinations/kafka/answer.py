"""Translate Kafka's errors: what an error means for a message, and for the producer that got it.

Source: https://kafka.apache.org/protocol#protocol_error_codes
"""

from __future__ import annotations

from aiokafka import errors as kafka

from relay.decide.outcome import Outcome, failed, refused, unanswered, unreachable
from relay.observe.logging import one_line, redacted

# The record is at fault, in any topic.
OF_THE_RECORD = (
    kafka.MessageSizeTooLargeError,
    kafka.RecordListTooLargeError,
    kafka.RecordTooLargeError,
    kafka.InvalidTimestampError,
    kafka.PolicyViolationError,
)

# The topic is at fault, and therefore every message for it. That may be every message.
OF_THE_TOPIC = (kafka.InvalidTopicError, kafka.TopicAuthorizationFailedError)

# After one of these, a producer gets only errors.
OF_THE_PRODUCER = (
    kafka.ProducerFenced,
    kafka.ProducerClosed,
    kafka.InvalidProducerEpoch,
    kafka.InvalidProducerIdMapping,
    kafka.OutOfOrderSequenceNumber,
    kafka.UnknownProducerId,
    kafka.ClusterAuthorizationFailedError,
)

# A broker that does not support idempotent producers answers one of these to a producer's first request.
NO_IDEMPOTENCE = (
    kafka.UnknownError,
    kafka.UnsupportedVersionError,
    kafka.IncompatibleBrokerVersion,
    kafka.ClusterAuthorizationFailedError,
    kafka.InvalidRequestError,
)


def judge(error: Exception) -> Outcome:
    """Return the outcome for the only message of a batch, from the error that it got."""
    reason = explained(error)
    if isinstance(error, OF_THE_RECORD):
        return refused(reason)
    if isinstance(error, OF_THE_TOPIC) or getattr(error, "retriable", False):
        return unanswered(reason)  # such as a partition without a leader: other partitions may work
    return unreachable(reason) if is_an_outage(error) else failed(reason)


def may_be_of_a_record(error: Exception) -> bool:
    """Return whether a single record of a batch may be at fault.

    The library has no class for some errors, for example for an invalid record (87).
    """
    return isinstance(error, (*OF_THE_RECORD, kafka.UnknownError))


def is_an_outage(error: Exception) -> bool:
    """Return whether no message could have got through."""
    if isinstance(error, (OSError, kafka.SaslAuthenticationFailed, *OF_THE_PRODUCER)):
        return True
    return not isinstance(error, kafka.BrokerResponseError)


def ends_a_producer(error: Exception, *, is_idempotent: bool) -> bool:
    """Return whether the producer can no longer be used.

    An idempotent producer has numbered the rejected batch, and the broker waits for that number.
    """
    if isinstance(error, OF_THE_PRODUCER) or type(error) is kafka.KafkaError:
        return True
    return is_idempotent and isinstance(error, kafka.BrokerResponseError)


def explained(error: BaseException) -> str:
    """Return a sentence for people, on one line and without a secret."""
    said = str(error) or getattr(error, "message", "") or type(error).__name__
    described = getattr(error, "description", None)
    text = f"{said}: {described}" if described and described not in said else said
    return one_line(redacted(" ".join(text.split())))
