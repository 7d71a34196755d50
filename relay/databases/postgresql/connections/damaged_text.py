"""Read text with invalid bytes, to show it to people: U+FFFD replaces each invalid byte.

A database that is not in UTF-8 stores any bytes as text. A relay sets such messages aside (`relay.owner.unreadable`),
and an operator must be able to see them.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from relay.databases.postgresql.connections.session_settings import ask_first

TEXTS = ("text", "varchar", "bpchar", "name")


def accept_any_bytes(engine: sa.Engine) -> None:
    sa.event.listen(engine, "connect", _as_stored)


def _as_stored(connection: Any, record: Any) -> None:
    """Read text in the server's encoding, so that the server converts nothing and refuses nothing."""
    from psycopg import NotSupportedError

    driver = record.driver_connection
    stored_in = driver.info.parameter_status("server_encoding")
    if stored_in == "UTF8":
        return
    _take(connection, stored_in)
    try:
        codec = "utf-8" if stored_in == "SQL_ASCII" else driver.info.encoding
    except NotSupportedError:  # Python has no codec for this encoding
        _take(connection, "UTF8")
    else:
        _decode(driver, codec)


def _take(connection: Any, encoding: str) -> None:
    ask_first(connection, f"SELECT set_config('client_encoding', '{encoding}', false)")


def _decode(driver: Any, codec: str) -> None:
    from psycopg.types.json import set_json_loads
    from psycopg.types.string import TextLoader

    class AnyTextLoader(TextLoader):
        def load(self, data: Any) -> str:
            return bytes(data).decode(codec, "replace")

    for name in TEXTS:
        driver.adapters.register_loader(name, AnyTextLoader)
    set_json_loads(AnyJson(codec), driver)


class AnyJson:
    """Parses JSON in a codec and accepts any bytes. It is a class, because psycopg warns when it keeps a closure."""

    def __init__(self, codec: str) -> None:
        self._codec = codec

    def __call__(self, data: Any) -> Any:
        return json.loads(str(data, self._codec, "replace"))
