"""Commands with which an operator changes what becomes of messages."""
