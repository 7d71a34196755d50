"""What an answer of Kafka means: for a message, and for the producer that got it.

Source: https://kafka.apache.org/protocol#protocol_error_codes
"""

from __future__ import annotations

from aiokafka import errors as kafka

from relay.decide.outcome import Outcome, failed, refused, unanswered, unreachable
from relay.observe.logging import one_line, redacted

# The record is at fault, whichever topic it goes to.
OF_THE_RECORD = (
    kafka.MessageSizeTooLargeError,
    kafka.RecordListTooLargeError,
    kafka.RecordTooLargeError,
    kafka.InvalidTimestampError,
    kafka.PolicyViolationError,
)

# The topic is at fault: so is each message that goes there.
OF_THE_TOPIC = (kafka.InvalidTopicError, kafka.TopicAuthorizationFailedError)

# A producer that got one of these gets nothing else any more.
OF_THE_PRODUCER = (
    kafka.ProducerFenced,
    kafka.ProducerClosed,
    kafka.InvalidProducerEpoch,
    kafka.InvalidProducerIdMapping,
    kafka.OutOfOrderSequenceNumber,
    kafka.UnknownProducerId,
    kafka.ClusterAuthorizationFailedError,
)

# A broker that has no idempotent producers answers one of these to the first request of one.
NO_IDEMPOTENCE = (
    kafka.UnknownError,
    kafka.UnsupportedVersionError,
    kafka.IncompatibleBrokerVersion,
    kafka.ClusterAuthorizationFailedError,
    kafka.InvalidRequestError,
)


def judge(error: Exception, *, shares_a_topic: bool) -> Outcome:
    """Return the outcome for a message that was alone in its batch.

    Args:
        error: What publishing it raised.
        shares_a_topic: Whether all messages go to the same topic, so that what is wrong with it is wrong for all.
    """
    reason = explained(error)
    if isinstance(error, OF_THE_RECORD):
        return refused(reason)
    if isinstance(error, OF_THE_TOPIC):
        return unreachable(reason) if shares_a_topic else refused(reason)
    if getattr(error, "retriable", False):
        return unanswered(reason)  # of this partition, such as that it has no leader; the others may be well
    return unreachable(reason) if is_an_outage(error) else failed(reason)


def may_be_of_a_record(error: Exception) -> bool:
    """Whether one record of a batch may be at fault, and the others not.

    The library knows no class for some errors, such as that a record is invalid (87).
    """
    return isinstance(error, (*OF_THE_RECORD, kafka.UnknownError))


def is_an_outage(error: Exception) -> bool:
    """Whether no message could have got through."""
    if isinstance(error, (OSError, kafka.SaslAuthenticationFailed, *OF_THE_PRODUCER)):
        return True
    return not isinstance(error, kafka.BrokerResponseError)


def ends_a_producer(error: Exception, *, is_idempotent: bool) -> bool:
    """Whether the producer is of no use any more.

    An idempotent one has numbered the batch that was rejected, and the broker waits for that number.
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
