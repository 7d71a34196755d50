"""Find the message that kills relays."""
