"""Durations and rates, as people write them in settings and options."""
