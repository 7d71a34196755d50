"""What a relay shows of itself: logs, health, metrics."""
