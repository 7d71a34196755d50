"""A listener's call in its own transaction."""
