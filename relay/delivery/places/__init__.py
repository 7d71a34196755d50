"""The places in which an entry of a queue can be, and what is known of its ordering key: see `relay.delivery.queue`."""
