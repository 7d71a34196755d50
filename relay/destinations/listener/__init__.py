"""A destination in this process: a Python callable."""
