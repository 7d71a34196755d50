"""What a message has to be, for every database and wire that it will pass through."""
