"""What several kinds need to send: CloudEvents, names made from a message, one connection for many."""
