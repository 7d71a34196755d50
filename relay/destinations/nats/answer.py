"""What an answer of JetStream means for a message.

Source: https://docs.nats.io/reference/reference-protocols/nats_api_reference#error-response, and server/errors.json in
https://github.com/nats-io/nats-server for the codes.
"""

from __future__ import annotations

import json
from typing import Any

from relay.decide.outcome import TAKEN, Outcome, failed, refused, unanswered, unreachable
from relay.observe.logging import one_line, redacted

NO_RESPONDERS = "503"
TOO_LARGE = 10054  # than the stream's max_msg_size
FAULTS_OF_A_MESSAGE = range(400, 500)

# Of those numbered like a fault of the request: what no message gets past.
STANDS_STILL = {
    10023,  # insufficient resources
    10039,  # JetStream is not enabled for this account
    10047,  # insufficient storage
    10059,  # the stream does not exist any more
    10060,  # another stream than the expected one has the subject
    10076,  # JetStream is not enabled
    10077,  # the stream is full
}


def judge(payload: bytes, status: str | None, subject: str, *, shares_a_subject: bool) -> tuple[Outcome, bool]:
    """Return the outcome for a message, and whether the stream had it already.

    Args:
        payload: What was answered.
        status: The status in its headers, if there was one.
        subject: Where the message was published to.
        shares_a_subject: Whether all messages go there, so that what is wrong with it is wrong for all.
    """
    if status == NO_RESPONDERS:
        judged = unreachable if shares_a_subject else unanswered
        return judged(f"no stream takes the subject {subject}: create one, or set declare = true"), False
    try:
        answer = json.loads(payload)
    except ValueError:
        return failed(f"the subject {subject} was answered by something that is no stream"), False
    if error := answer.get("error"):
        return _outcome(error), False
    if "stream" not in answer:
        return failed(f"the subject {subject} was answered by something that is no stream"), False
    return TAKEN, bool(answer.get("duplicate"))


def _outcome(error: dict[str, Any]) -> Outcome:
    code = error.get("err_code", 0)
    reason = one_line(redacted(f"JetStream says: {error.get('description', 'an error')} ({code})"))
    if code == TOO_LARGE:
        return refused(reason)
    if code in STANDS_STILL or error.get("code") not in FAULTS_OF_A_MESSAGE:
        return unreachable(reason)
    return failed(reason)
