"""The places of the entries of a queue, and the chains of ordering keys: see `relay.delivery.queue`."""
