"""Messages, one or many: listing, showing, cancelling, retrying, replaying."""
