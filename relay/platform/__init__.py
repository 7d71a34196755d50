"""What the relay stands on: database URLs, connections, migrations, rights, and how lengths and counts are written."""
