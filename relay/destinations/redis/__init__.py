"""A destination on Redis: an entry in a stream for each message."""
