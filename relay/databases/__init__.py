"""Databases: URLs, connections, migrations, rights; and for each database a folder with the code that only it needs."""

from pathlib import Path


def names() -> list[str]:
    """Return SQLAlchemy's names of the databases: those of the folders here."""
    return sorted(each.parent.name for each in Path(__file__).parent.glob("*/dialect.py"))
