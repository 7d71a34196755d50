"""The checks that a message has to pass before it is written, for every database and wire."""
