"""Checks of a PostgreSQL server, and of our tables in it."""
