"""The event loop's part: which destination gets a message next, and what becomes of it."""
