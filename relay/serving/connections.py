"""Track connections, and choose which one to close when there is no room.

A connection *waits* while we wait for its client: for a request to arrive, or for an answer to be read. When there is
no room, the connection that has waited longest is closed: among those of the same client if that client has too many,
else among all. So any number of idle connections does not block new clients.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol


class Connection(Protocol):
    """A connection that can be closed."""

    def cut_off(self) -> None: ...


class Connections:
    """Counts connections.

    Args:
        limit: The most connections.
        per_client: The most connections of one client.
    """

    def __init__(self, *, limit: int, per_client: int) -> None:
        self._limit, self._per_client = limit, per_client
        self._clients: dict[Connection, str] = {}
        self._counts: Counter[str] = Counter()
        self._waiting: dict[Connection, None] = {}  # ordered by the start of the wait

    def __len__(self) -> int:
        return len(self._clients)

    def arrive(self, connection: Connection, client: str, *, is_proxy: bool = False) -> bool:
        """Count a new connection, which waits; return ``False`` if there is no room for it.

        Args:
            connection: The connection.
            client: The client's key.
            is_proxy: Whether many clients share this address; then the limit per client does not apply.
        """
        if self._counts[client] >= self._per_client and not is_proxy:
            if not self._make_room(client):
                return False
        elif len(self._clients) >= self._limit and not self._make_room(None):
            return False
        self._clients[connection] = client
        self._counts[client] += 1
        self._waiting[connection] = None
        return True

    def wait(self, connection: Connection) -> None:
        """Begin to wait for its client, unless the wait has begun."""
        if connection in self._clients:
            self._waiting.setdefault(connection)

    def work(self, connection: Connection) -> None:
        """End the wait: the next step is ours."""
        self._waiting.pop(connection, None)

    def leave(self, connection: Connection) -> None:
        """Remove a connection from the count."""
        self._waiting.pop(connection, None)
        client = self._clients.pop(connection, None)
        if client is not None:
            self._counts[client] -= 1
            if not self._counts[client]:
                del self._counts[client]

    def _make_room(self, client: str | None) -> bool:
        for connection in self._waiting:
            if client is None or self._clients[connection] == client:
                self.leave(connection)
                connection.cut_off()
                return True
        return False
