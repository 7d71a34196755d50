"""The base of the relay: units, the wording of durations and counts, and the watchdog."""
