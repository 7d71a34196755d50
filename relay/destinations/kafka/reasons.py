"""Find the reason why no broker accepts a connection: the library only logs it, and raises an error without it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from aiokafka import errors as kafka

from relay.destinations.kafka.answer import explained
from relay.destinations.kafka.settings import KafkaSettings

_reasons: ContextVar[list[Exception]] = ContextVar("reasons")


@contextmanager
def telling_why(settings: KafkaSettings) -> Iterator[None]:
    """If no broker accepts the connection, translate the library's error into one that says why.

    Raises:
        KafkaError: No broker accepts the connection.
    """
    reasons: list[Exception] = []
    token = _reasons.set(reasons)
    try:
        yield
    except (KeyError, ValueError) as error:  # the library fails like this when some brokers refuse a SCRAM login
        raise kafka.KafkaError(_not_let_in(settings)) from error
    except kafka.KafkaConnectionError as error:
        raise kafka.KafkaError(_worded(reasons[-1], settings) if reasons else explained(error)) from error
    finally:
        _reasons.reset(token)


def _worded(reason: Exception, settings: KafkaSettings) -> str:
    if isinstance(reason, kafka.UnsupportedSaslMechanismError):
        return f"the broker does not take the sasl_mechanism {settings.sasl_mechanism}"
    if isinstance(reason, kafka.SaslAuthenticationFailed):
        return f"{_not_let_in(settings)}: {explained(reason)}"
    return explained(reason)


def _not_let_in(settings: KafkaSettings) -> str:
    return f"the broker does not let {settings.username} in ({settings.sasl_mechanism})"


def _note(record: logging.LogRecord) -> bool:
    """Note the error in a log record of the library, and let the record pass."""
    reasons = _reasons.get(None)
    if reasons is not None and isinstance(record.args, tuple):
        reasons += [each for each in record.args if isinstance(each, Exception)]
    return True


logging.getLogger("aiokafka").addFilter(_note)
