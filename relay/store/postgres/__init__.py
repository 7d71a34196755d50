"""The store on PostgreSQL: the session is the lease.

A relay claims nothing row by row. It owns shards by holding *session* advisory locks, on one bare connection that is
never pooled and never silently reconnected: when the session ends, for any reason, the server itself gives the
locks to the next relay that asks. The session carries a token (`outbox.owner`); a statement that only an owner may run
asks for it, so that a pooler or a reconnect that slipped a different session under us is found out at once.

A lock needs no right, so it is not enough: the row of a shard names its owner, too (`claiming`).

The lease is the server's to enforce: an idle, stuck or vanished client is ended by the timeouts that `connection` sets.
The freezes that escape all of them are ended by a peer, which sees in `outbox_relay` that the holder has not beaten for
two leases, by the database's own clock.

`connection` is the bare connection, `ownership`, `claiming`, `reading`, `settling` and `waking` are what a session does
with it; the statements of each stand beside it, in `*_sql`.
"""

from relay.store.postgres.session import PostgresSession, PostgresStore

__all__ = ["PostgresSession", "PostgresStore"]
