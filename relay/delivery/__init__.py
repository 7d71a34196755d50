"""The event loop's part of a relay: choose the next message for each destination, and take its outcome."""
