"""Connections to PostgreSQL: their parameters, their settings, and servers that cannot hold the locks."""
