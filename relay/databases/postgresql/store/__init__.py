"""The store on PostgreSQL: the session is the lease.

A relay does not claim single rows. It owns shards on one bare connection that is never pooled and never silently
reconnected. The connection holds a *session* advisory lock, which shows that the relay is alive, and the row of a shard
names the relay that owns it (`ownership`). When the session ends, for any reason, the server itself ends the lock, and
the next relay that asks gets the shards. The session has a token (`outbox.owner`). Each statement that only an owner
may run checks it, so a session that a pooler or a reconnect has put in its place is noticed at once.

The server enforces the lease: the timeouts that `connection` sets end an idle, frozen or vanished client. Some freezes
escape all of these timeouts. A peer ends such a session: it sees in `outbox_relay` that the holder has not beaten for
two leases, by the database's clock.

A session has a `connection`, which its parts `ownership`, `reading`, `settling` and `waking` share. Their statements
are in `relay.databases.postgresql.sql`.
"""
