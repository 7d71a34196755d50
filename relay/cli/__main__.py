"""``python -P -m relay.cli``: how a supervisor starts its relays."""

from relay.cli.app import main

main()
