"""Translate Kafka's errors: what they mean for a message, and for the producer that got them.

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

# The topic is at fault, and so is each message for it.
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

# A broker without idempotent producers answers one of these to the first request of one.
NO_IDEMPOTENCE = (
    kafka.UnknownError,
    kafka.UnsupportedVersionError,
    kafka.IncompatibleBrokerVersion,
    kafka.ClusterAuthorizationFailedError,
    kafka.InvalidRequestError,
)


def judge(error: Exception, *, shares_a_topic: bool) -> Outcome:
    """Return the outcome for the only message of a batch.

    Args:
        error: The error from publishing it.
        shares_a_topic: Whether all messages go to the same topic; then a fault of the topic affects all.
    """
    reason = explained(error)
    if isinstance(error, OF_THE_RECORD):
        return refused(reason)
    if isinstance(error, OF_THE_TOPIC):
        return unreachable(reason) if shares_a_topic else refused(reason)
    if getattr(error, "retriable", False):
        return unanswered(reason)  # of this partition, for example without a leader; others may work
    return unreachable(reason) if is_an_outage(error) else failed(reason)


def may_be_of_a_record(error: Exception) -> bool:
    """Return whether one record of a batch may be at fault, and the others not.

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
