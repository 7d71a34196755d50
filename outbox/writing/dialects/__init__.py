"""The differences between databases for a worker: one module for each database, with SQLAlchemy's name of it."""
