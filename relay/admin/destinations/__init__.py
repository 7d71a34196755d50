"""The registered destinations: register, list, pause, probe."""
