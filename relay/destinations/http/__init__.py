"""A destination over HTTP: a POST for each message."""
