"""A driver's errors become sentences with the remedy that fits."""

import psycopg
import pytest
import sqlalchemy as sa

from outbox.errors import OutboxError, Unusable
from relay.admin.access.opening import reaching
from relay.databases.database import Database

DATABASE = Database.parse("postgresql://app:hunter2@db/app")


def raised(error: psycopg.Error) -> sa.exc.DBAPIError:
    return sa.exc.OperationalError("SELECT 1", {}, error)


def test_a_statement_that_took_too_long_is_no_database_that_cannot_be_reached() -> None:
    """A role may have its own statement_timeout."""
    with pytest.raises(OutboxError, match="raise statement_timeout for this role") as caught, reaching(DATABASE):
        raise raised(psycopg.errors.QueryCanceled("canceling statement due to statement timeout"))
    assert not isinstance(caught.value, Unusable)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("error", [psycopg.errors.IdleInTransactionSessionTimeout, psycopg.errors.TransactionTimeout])
def test_a_transaction_that_the_server_ended_for_its_age_is_a_sentence(error: type[psycopg.Error]) -> None:
    """A role may have its own timeout of this kind."""
    with pytest.raises(OutboxError, match="raise this timeout for this role"), reaching(DATABASE):
        raise raised(error("terminating connection due to a timeout"))


def test_a_server_that_refuses_us_runs_and_can_be_reached() -> None:
    refusal = psycopg.OperationalError('connection to server at "db", port 5432 failed: FATAL:  no such user')
    with pytest.raises(Unusable, match="refuses us: no such user") as caught, reaching(DATABASE):
        raise raised(refusal)
    assert "check what OUTBOX_DATABASE_URL or DATABASE_URL says" in str(caught.value)
    assert "server runs" not in str(caught.value)


def test_a_server_that_shuts_down_cannot_be_reached() -> None:
    with pytest.raises(Unusable, match="cannot reach the database"), reaching(DATABASE):
        raise raised(psycopg.errors.AdminShutdown("terminating connection due to administrator command"))
