"""What the tests stand on: real databases, real processes, and waiting for things with a deadline."""
