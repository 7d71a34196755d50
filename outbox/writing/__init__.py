"""Writing messages into the caller's transaction."""
