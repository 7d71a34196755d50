"""Evidence from attempts about a destination and its messages: see `relay.decide.breaker`."""
