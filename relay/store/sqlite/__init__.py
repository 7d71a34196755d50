"""The store on SQLite: one relay for each file, by an operating-system lock on a file beside it.

The lock is the lease: it ends with the process, and a second relay stands by until then. One relay owns all shards, and
has no peers. Otherwise the rules are those of PostgreSQL, and one contract suite tests both.

`connection` is the open file, `ownership`, `reading`, `settling` and `waking` are what a session does with it; the
statements of each stand beside it, in `*_sql`.
"""
