"""Call a listener in a transaction: its inbox mark and all its writes are committed together, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any

from outbox import Message
from relay.databases.deadlock_retry import is_conflict, pauses_s
from relay.destinations.listener.calling import Calling
from relay.destinations.listener.returned import check_returned
from relay.destinations.listener.transaction.commit_gate import CommitGate
from relay.destinations.listener.transaction.inbox_mark import InboxMark
from relay.destinations.listener.transaction.session_guard import COMMITTED_EARLY, ENDED, SessionGuard
from relay.destinations.listener.transaction.sessions import Sessions
from relay.observe import process
from relay.platform.watchdog import name_of

CALM_S = 2.0  # how long calls take turns after a conflict, in seconds


class Transactions:
    """Runs a listener that asks for a session.

    Args:
        name: The listener's name in the inbox.
        listener: The callable.
        calling: How the listener is called.
        sessions: Opens its sessions.
    """

    def __init__(self, name: str, listener: Callable[..., Any], calling: Calling, sessions: Sessions) -> None:
        self._name, self._sessions = name, sessions
        self._call = calling.caller(listener)
        self._session_guard = SessionGuard(sessions.engine, name_of(listener))
        self._calm_until = 0.0

    def run(self, message: Message, gate: CommitGate | None) -> Any:
        """Call the listener and commit; repeat this if the database ended the transaction in favour of another one.

        After a conflict, calls take turns for a while. Otherwise the same calls would conflict again, and each deadlock
        costs a second until the server detects it.
        """
        has_turn = monotonic() < self._calm_until and self._sessions.take_turn()
        try:
            for pause_s in pauses_s():
                try:
                    return self._run(message, gate)
                except Exception as error:
                    if not is_conflict(error) or (gate is not None and not gate.reopen()):
                        raise
                self._calm_until = monotonic() + CALM_S
                self._sessions.pause(pause_s)
                has_turn = has_turn or self._sessions.take_turn()
            return self._run(message, gate)
        finally:
            if has_turn:
                self._sessions.end_turn()

    def _run(self, message: Message, gate: CommitGate | None) -> None:
        mark = InboxMark(self._name, message.id)
        try:
            self._run_and_commit(message, gate, mark)
        except (Exception, asyncio.CancelledError):
            if mark.has_lost_its_transaction:
                with mark.warning_if_it_may_stay():
                    with self._sessions.engine.begin() as connection:
                        was_committed = mark.remove(connection)
                    if was_committed:
                        self._session_guard.refuse(COMMITTED_EARLY)
            raise

    def _run_and_commit(self, message: Message, gate: CommitGate | None, mark: InboxMark) -> None:
        lent, session = self._sessions.open()
        with session:  # closing it rolls back, and tolerates a transaction that has ended, unlike session.begin()
            if gate is not None:
                gate.limit(session)
            is_new = mark.make(session)
            process.inbox(self._name, is_new=is_new)
            if is_new:
                try:
                    with self._session_guard.on(session), self._sessions.contained:
                        check_returned(self._sessions.result_of(self._call(message.copy(), lent)))
                finally:
                    mark.look()
                if mark.has_lost_its_transaction:
                    self._session_guard.refuse(ENDED)
            if gate is not None:
                session.flush()
                gate.pass_through()
            session.commit()
