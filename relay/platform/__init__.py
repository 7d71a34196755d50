"""The base of the relay: database URLs, connections, migrations, rights, and the wording of durations and counts."""
