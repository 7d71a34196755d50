"""The command line ``outbox``."""

from relay.cli.app import main

__all__ = ["main"]
