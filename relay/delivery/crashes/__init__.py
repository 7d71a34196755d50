"""Finding the message that kills relays."""
