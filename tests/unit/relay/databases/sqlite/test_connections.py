"""A listener's engine opens the file that its URL names, and creates none."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from relay.databases.database import Database


def test_a_listener_creates_no_file(tmp_path: Path) -> None:
    engine = Database.parse(f"sqlite:///{tmp_path}/misspelt.db").listener_engine(poolclass=sa.NullPool)
    with pytest.raises(sa.exc.OperationalError, match=r"there is no database at .*misspelt\.db"):
        engine.connect()
    assert list(tmp_path.iterdir()) == []


def test_a_listener_opens_a_file_that_is_named_by_a_uri(tmp_path: Path) -> None:
    (tmp_path / "app.db").touch()
    engine = Database.parse(f"sqlite:///file:{tmp_path}/app.db?uri=true").listener_engine(poolclass=sa.NullPool)
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT file FROM pragma_database_list")) == str(tmp_path / "app.db")
