"""The store on SQLite: one relay for each file, by an operating-system lock on a file beside it.

The lock is the lease: it ends with the process, and until then a second relay stands by. One relay owns all shards, and
has no peers. Otherwise the rules are those of PostgreSQL, and one contract suite tests both.

A session has a `connection`, which its parts `ownership`, `reading`, `settling` and `waking` share. Their statements
are in `relay.databases.sqlite.sql`.
"""
