"""Commands that show what is stored and how the relays do."""
