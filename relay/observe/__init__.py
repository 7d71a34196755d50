"""The reports of a relay about itself: logs, health, metrics."""
