"""Write messages into the caller's transaction."""
