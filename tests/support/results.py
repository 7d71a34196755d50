"""A table of a host application, for messages that are emitted beside its rows."""

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from support.databases import Database


class Base(DeclarativeBase):
    pass


class Result(Base):
    __tablename__ = "results"

    name: Mapped[str] = mapped_column(primary_key=True)


def types(database: Database) -> list[str]:
    """Return the types of the messages that are not in the history, in their order."""
    return [row.type for row in database.rows("SELECT type FROM outbox_message ORDER BY position")]
