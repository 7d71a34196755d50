"""A payload that `redact` names is in no reason and no line of the log, even if a listener's exception repeats it."""

from __future__ import annotations

import io
import logging

import pytest
from support.databases import Database
from support.scene import Scene, to

from outbox import Message, Reject, emit
from relay.observe.logging import configure

EMAIL, PHONE, TOKEN = "ada@example.com", "0049-30-1234567", "token-of-ada"


@pytest.fixture
def log() -> io.StringIO:
    """What a relay process logs."""
    stream = io.StringIO()
    configure(log_format="json", stream=stream)
    return stream


@pytest.mark.parametrize("error", [ValueError, Reject])
@pytest.mark.parametrize("redact", [("data.customer.email", "data.phones", "headers.x-token"), ()])
async def test_what_a_listener_repeats_is_masked(
    database: Database, log: io.StringIO, error: type[Exception], redact: tuple[str, ...]
) -> None:
    def fail(message: Message) -> None:
        data = message.data
        customer, token = data.pop("customer"), message.headers.pop("x-token")
        logging.getLogger("host").warning("no mail to %s", customer["email"])
        raise error(f"cannot reach {customer['email']} or {data['phones'][0]} with {token}")

    scene = Scene(database)
    with database.engine.begin() as connection:
        data = {"customer": {"email": EMAIL}, "phones": [PHONE], "n": 1}
        emit(connection, "page.read", data, headers={"x-token": TOKEN})
    async with scene.relay({"a": to(fail, max_attempts=1)}, redact=redact):
        await scene.becomes(0, 0, 1, 0)
    reasons = str(database.rows("SELECT reason, log FROM outbox_delivery"))
    assert "cannot reach" in reasons
    assert "cannot reach" in log.getvalue()
    for text in (reasons, log.getvalue()):
        assert (EMAIL in text, PHONE in text, TOKEN in text) == (not redact, not redact, not redact)
