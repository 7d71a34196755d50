"""An engine that is closed leaves no connection open, not even one that is in use."""

import pytest
import sqlalchemy as sa
from support.databases import Database

from relay.databases.database import Database as Address
from relay.databases.database import close_engine


def test_a_connection_in_use_is_closed_when_it_is_returned(database: Database) -> None:
    """It used to stay open until it was collected as garbage."""
    engine = Address.parse(database.url).engine()
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        close_engine(engine)
        assert connection.scalar(sa.text("SELECT 7")) == 7
    with pytest.raises(Exception, match="closed"):
        driver.execute("SELECT 7")
