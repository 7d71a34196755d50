"""Commands with which an operator changes stored messages."""
