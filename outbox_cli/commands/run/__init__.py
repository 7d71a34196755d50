"""Commands that run the product: the demo, migrations, relays, the receivers."""
