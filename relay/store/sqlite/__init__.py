"""The store on SQLite: one relay a file, by an operating-system lock on a file beside it.

The lock is the lease: it ends with the process, however that ends, and a second relay stands by until then. There is
nothing to share and no peer to see; a shard is a name. Otherwise the rules are those of PostgreSQL, and one contract
suite holds both to them.

`connection` is the open file, `ownership`, `reading`, `settling` and `waking` are what a session does with it; the
statements of each stand beside it, in `*_sql`.
"""

from relay.store.sqlite.session import SqliteSession, SqliteStore

__all__ = ["SqliteSession", "SqliteStore"]
