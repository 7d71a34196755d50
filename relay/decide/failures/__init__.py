"""What attempts tell of a destination and of its messages: see `relay.decide.breaker`."""
