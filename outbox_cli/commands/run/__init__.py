"""Commands that run or prepare processes: the demo, migrations, relays, receivers."""
