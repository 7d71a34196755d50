"""What a relay reports about itself: logs, health, metrics."""
