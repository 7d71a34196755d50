"""A destination over HTTP: the body is the event's data, headers hold everything else.

Each attempt is signed anew, under the same id. During the rotation of a secret there are two secrets. The secret that
the receiver accepted last is tried first; after a 401 the other secret is tried before the attempt counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from time import time

from outbox import Message, __version__
from relay.decide.outcome import TAKEN, Outcome, unanswered
from relay.destinations.http.answer import UNAUTHORIZED, Answer, judge
from relay.destinations.http.echo import Echo
from relay.destinations.http.pool import Pool
from relay.destinations.http.settings import HttpSettings
from relay.destinations.http.signing import Key, signature
from relay.destinations.sending.cloudevents import (
    BATCH_TYPE,
    JSON_TYPE,
    Header,
    batch,
    binary_headers,
    encoded,
    fits_a_batch,
    producer_headers,
)
from relay.destinations.sending.deadline import Deadline
from relay.observe.logging import one_line

DETAIL_LENGTH = 500

JSON: Header = (b"Content-Type", JSON_TYPE.encode())
BATCH: Header = (b"Content-Type", BATCH_TYPE.encode())
AGENT: Header = (b"User-Agent", f"neverlost/{__version__}".encode())


class HttpDestination:
    """POSTs messages to a URL.

    Args:
        name: The destination's name.
        settings: The URL, the secrets and the limits.
    """

    def __init__(self, name: str, settings: HttpSettings) -> None:
        self.name = name
        self.concurrency = settings.concurrency
        self.batch_size = settings.batch
        settings.tls_context()  # reports a fault in the files now
        self._settings = settings
        static = settings.static_headers()
        self._taken_names = {name.lower() for name, _ in static}
        # The headers of every request: one set for each secret, in the order in which the secrets are tried.
        self._fixed: list[list[Header]] = [
            [*proof, AGENT, *static]
            for proof in [[(b"X-Internal-Secret", secret.encode())] for secret in settings.shared_secrets()] or [[]]
        ]
        self._keys = [Key(key) for key in settings.signing_keys()]
        self._deadline = Deadline(settings.timeout_s)
        self._echo = Echo(settings.secrets())
        self._pool: Pool | None = None

    async def start(self) -> None:
        self._pool = Pool(self._settings)

    async def send(self, message: Message) -> Outcome:
        headers = [JSON, *binary_headers(message)]
        if message.headers:
            headers += [each for each in producer_headers(message) if each[0].lower() not in self._taken_names]
        return await self._attempt(message.id, message.body, headers)

    async def send_many(self, messages: Sequence[Message]) -> Outcome:
        digest = hashlib.sha256(" ".join(message.id for message in messages).encode()).hexdigest()
        return await self._attempt(f"batch-{digest[:32]}", batch(messages), [BATCH])

    def may_share(self, message: Message) -> bool:
        return fits_a_batch(message)

    async def close(self) -> None:
        self._deadline.close()
        if self._pool is not None:
            await self._pool.close()

    async def _attempt(self, id_: str, body: bytes, headers: list[Header]) -> Outcome:
        try:
            with self._deadline.attempt():
                answer = await self._authenticated(encoded(id_), body, headers)
        except TimeoutError:
            return unanswered(f"no complete answer within {self._deadline.after_s:g} s")
        if isinstance(answer, Outcome):
            return Outcome(answer.kind, one_line(self._echo.masked(answer.reason)))
        if answer.is_success:
            return TAKEN
        return judge(answer, on_409=self._settings.on_409, now=datetime.now(UTC), detail=self._detail(answer))

    async def _authenticated(self, id_: bytes, body: bytes, headers: list[Header]) -> Answer | Outcome:
        """Return the answer to the secret that was accepted last; after a 401, the answer to the other one."""
        assert self._pool is not None
        answer: Answer | Outcome
        for fixed in tuple(self._fixed):
            answer = await self._pool.post(body, headers + fixed + self._signed(id_, body))
            if not isinstance(answer, Answer) or answer.status != UNAUTHORIZED:
                if fixed is not self._fixed[0]:
                    self._fixed.sort(key=lambda known: known is not fixed)
                break
        return answer

    def _signed(self, id_: bytes, body: bytes) -> list[Header]:
        """Return the headers with the event id and the signature, which is valid for a few minutes."""
        headers = [(b"Idempotency-Key", b'"%b"' % id_)]
        if self._keys:
            timestamp = b"%d" % time()
            made = signature(self._keys, id_, timestamp, body)
            headers += (b"webhook-id", id_), (b"webhook-timestamp", timestamp), (b"webhook-signature", made)
        return headers

    def _detail(self, answer: Answer) -> str:
        """Return the beginning of the body, on one line, with any secret that the receiver repeated masked."""
        text = answer.body[: 2 * DETAIL_LENGTH].decode("utf-8", "replace")
        return one_line(self._echo.masked(text))[:DETAIL_LENGTH]
