"""The differences between databases for a worker: one folder for each database, with SQLAlchemy's name of it."""
