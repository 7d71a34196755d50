"""What the tests share: real databases, real processes, and waiting with a deadline."""
