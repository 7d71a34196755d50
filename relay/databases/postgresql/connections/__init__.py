"""Connections to PostgreSQL: their parameters, settings and errors, and servers that cannot hold the locks."""
