"""The store on PostgreSQL: the session is the lease.

A relay claims no single rows. It owns shards by holding *session* advisory locks, on one bare connection that is
never pooled and never silently reconnected: when the session ends, for any reason, the server itself gives the locks to
the next relay that asks. The session carries a token (`outbox.owner`); a statement that only an owner may run checks
it, so a pooler or a reconnect that gives us another session is found at once.

A lock needs no right, so it is not enough: the row of a shard names its owner, too (`claiming`).

The server enforces the lease: the timeouts that `connection` sets end an idle, frozen or vanished client. A peer ends
the freezes that escape all of them: it sees in `outbox_relay` that the holder has not beaten for two leases, by the
database's clock.

`connection` is the bare connection, `ownership`, `claiming`, `reading`, `settling` and `waking` are the tasks of a
session; their statements are in `sql`.
"""
