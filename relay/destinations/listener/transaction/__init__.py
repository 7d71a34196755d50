"""A listener's call in a transaction of its own."""
