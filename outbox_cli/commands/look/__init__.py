"""Commands that show stored data and the state of the relays."""
