"""Translate an answer of JetStream to an outcome.

Source: https://docs.nats.io/reference/reference-protocols/nats_api_reference#error-response, and server/errors.json in
https://github.com/nats-io/nats-server for the codes.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from relay.decide.outcome import TAKEN, Outcome, failed, refused, unanswered, unreachable
from relay.observe.logging import one_line, redacted

NO_RESPONDERS = "503"
TOO_LARGE = 10054  # larger than the stream's max_msg_size
FAULTS_OF_A_MESSAGE = range(400, 500)

# Codes with the status of a faulty request that affect every message.
STANDS_STILL = {
    10023,  # insufficient resources
    10039,  # JetStream is not enabled for this account
    10047,  # insufficient storage
    10059,  # the stream no longer exists
    10060,  # another stream than the expected one takes the subject
    10076,  # JetStream is not enabled
    10077,  # the stream is full
}


def judge(payload: bytes, status: str | None, subject: str) -> tuple[Outcome, bool]:
    """Return the outcome for a message, and whether the stream already had it.

    Args:
        payload: The answer's payload.
        status: The status in its headers, or ``None``.
        subject: The subject that the message was published to.
    """
    if status == NO_RESPONDERS:
        return unanswered(f"no stream takes the subject {subject}: create one"), False
    with suppress(ValueError):
        answer = json.loads(payload)
        if error := answer.get("error"):
            return _outcome(error), False
        if "stream" in answer:
            return TAKEN, bool(answer.get("duplicate"))
    return failed(f"the subject {subject} was answered by a service that is not a stream"), False


def _outcome(error: dict[str, Any]) -> Outcome:
    code = error.get("err_code", 0)
    reason = one_line(redacted(f"JetStream answered: {error.get('description', 'an error')} ({code})"))
    if code == TOO_LARGE:
        return refused(reason)
    if code in STANDS_STILL or error.get("code") not in FAULTS_OF_A_MESSAGE:
        return unreachable(reason)
    return failed(reason)
