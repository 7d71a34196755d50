"""Servers whose advisory locks lock nothing are recognised by the version that they report."""

import pytest

from outbox.errors import Unusable
from relay.databases.postgresql.connections.unsupported_servers import lockless_server, refuse_lockless_server


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("CockroachDB CCL v24.1.3 (x86_64-pc-linux-gnu, built 2024/07/29 22:00:33, go1.22.5)", "CockroachDB"),
        ("PostgreSQL 11.2-YB-2.20.1.0-b0 on x86_64-pc-linux-gnu, compiled by clang version 15.0.3", "YugabyteDB"),
        ("PostgreSQL 9.5 on x86_64-unknown-linux-gnu (Materialize v0.27.0)", "Materialize"),
        ("PostgreSQL 13.14.0-RisingWave-2.0.1 (0d15632ac8d18fbd323982b53bc2d508dc7e148a)", "RisingWave"),
        ("CrateDB 5.6.3 (built fd3bf1e/2024-04-05T08:43:53Z, Linux 5.15, OpenJDK 21)", "CrateDB"),
        (
            "PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC gcc, Redshift 1.0.12103",
            "Amazon Redshift",
        ),
    ],
)
def test_a_server_whose_locks_lock_nothing_is_refused_by_name_in_one_sentence(version: str, name: str) -> None:
    assert lockless_server(version) == name
    with pytest.raises(Unusable, match=f"^the server is {name}, .* PostgreSQL 14 or newer$") as refused:
        refuse_lockless_server(version)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "version",
    [
        "PostgreSQL 18.0 on x86_64-pc-linux-gnu, compiled by gcc (Debian 12.2.0-14+deb12u1) 12.2.0, 64-bit",
        "PostgreSQL 16.4 (Ubuntu 16.4-1.pgdg22.04+1) on aarch64-unknown-linux-gnu, compiled by gcc 11.4.0, 64-bit",
        "PostgreSQL 15.8 (EnterpriseDB Advanced Server 15.8.0) on x86_64-pc-linux-gnu, compiled by gcc, 64-bit",
    ],
)
def test_postgresql_is_not_refused(version: str) -> None:
    assert lockless_server(version) is None
    refuse_lockless_server(version)
