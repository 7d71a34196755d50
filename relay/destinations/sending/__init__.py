"""Code that several kinds share for sending: CloudEvents, names made from a message, a shared connection."""
