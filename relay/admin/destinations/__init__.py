"""The registered destinations: registering, listing, pausing, probing."""
