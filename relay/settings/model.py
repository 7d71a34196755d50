"""Everything a relay is told, in one object that never changes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializeAsAny,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from outbox.errors import SettingsError
from relay.destinations import registry
from relay.destinations.policy import DestinationPolicy, url_secrets
from relay.platform.database import Database
from relay.platform.units.durations import Days, Seconds
from relay.settings.serve import ServeSettings

DEFAULT_DATABASE_URL = "sqlite:///outbox.db"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SCHEMA = re.compile(r"""[^\s"'\\]+""")  # it goes into libpq's options


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _listed(value: object) -> object:
    return [each.strip() for each in value.split(",") if each.strip()] if isinstance(value, str) else value


def _of_its_kind(value: object) -> object:
    """Validate a destination by the model that its kind has."""
    if isinstance(value, DestinationPolicy):
        return value
    if not isinstance(value, Mapping):
        raise PydanticCustomError("no_table", "write a table: [destinations.NAME], with a kind")
    if "kind" not in value:
        raise PydanticCustomError("kind_missing", "kind is needed: {kinds}", {"kinds": registry.listed()})
    try:
        model = registry.kind(str(value["kind"])).settings
    except SettingsError as error:
        raise ValueError(str(error)) from None
    return model.model_validate(value)


DestinationSettings = Annotated[SerializeAsAny[DestinationPolicy], BeforeValidator(_of_its_kind)]


class Settings(BaseModel):
    """The settings of a relay.

    `relay.settings.load` makes them from flags, environment and file; made directly, they read nothing.

    Args:
        database_url: ``postgresql://…`` or ``sqlite:///path``.
        schema_name: The PostgreSQL schema (``OUTBOX_SCHEMA``; ``schema`` in the file).
        destinations: By name, where messages go.
        serve: How `outbox serve` receives.
        lease_s: A relay that has not been heard of for so long may lose its shards.
        beat_s: How often a relay shows that it is alive; at most a third of the lease.
        short_poll_s: How often a busy relay looks for messages.
        slow_poll_s: How often a sleeping one does, whether or not it was notified.
        quiet_s: With nothing to do for so long, a busy relay goes to sleep.
        page_size: How many messages one read takes at most; never more than half the window.
        window: How many messages a relay holds unsettled at most.
        grace_s: How long an orderly stop waits for what is under way.
        stall_timeout_s: With its event loop stuck for so long, the process ends itself.
        retention_days: How long delivered messages are kept; 0 keeps none.
        inbox_retention_days: How long a listener remembers what it has done.
        health_host: The address of /healthz, /readyz and /metrics; the loopback address unless told otherwise.
        health_port: Their port; 0 is off.
        notify: Wake up by LISTEN/NOTIFY. Off where transactions are prepared in two phases: nobody notifies any more,
            and polling remains.
        redact: Payload that pages, commands and logs mask, by path: ``data.email``, ``headers.x-user``.
        trace_children: Whether a span that processes a message is a child of the one that created it; else it is
            linked to it alone.
        log_format: ``"json"``, ``"text"``, or ``"auto"``: text on a terminal.
        log_level: ``"debug"``, ``"info"``, ``"warning"`` or ``"error"``.

    Example:
        >>> from relay import ListenerSettings
        >>> reports = ListenerSettings(listener="my_app.reports:on_completed", events=["extraction.*"])
        >>> Settings(destinations={"reports": reports}).lease_s
        15.0
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    database_url: str = Field(default=DEFAULT_DATABASE_URL, repr=False)
    schema_name: str | None = Field(
        default=None, min_length=1, max_length=63, validation_alias=AliasChoices("schema_name", "schema")
    )
    destinations: dict[str, DestinationSettings] = {}
    serve: ServeSettings = ServeSettings()
    lease_s: Seconds = Field(default=15.0, ge=1, le=3600)
    beat_s: Seconds = Field(default=1.0, ge=0.05, le=1200)
    short_poll_s: Seconds = Field(default=0.004, ge=0.001, le=1)
    slow_poll_s: Seconds = Field(default=1.0, ge=0.01, le=60)
    quiet_s: Seconds = Field(default=1.5, ge=0, le=60)
    page_size: int = Field(default=2000, ge=1, le=10_000)
    window: int = Field(default=4000, ge=1, le=100_000)
    grace_s: Seconds = Field(default=20.0, ge=0, le=3600)
    stall_timeout_s: Seconds = Field(default=60.0, ge=1, le=3600)
    retention_days: Days = Field(default=7, ge=0, le=3650)
    inbox_retention_days: Days = Field(default=30, ge=1, le=3650)
    health_host: str = Field(default="127.0.0.1", min_length=1)
    health_port: int = Field(default=9810, ge=0, le=65_535)
    notify: bool = True
    trace_children: bool = False
    log_format: Annotated[Literal["auto", "json", "text"], BeforeValidator(_lower)] = "auto"
    redact: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = "info"

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    _ignored: dict[str, str] = PrivateAttr(default_factory=dict)

    @field_validator("database_url")
    @classmethod
    def _is_a_database(cls, value: str) -> str:
        Database.parse(value)
        return value

    @field_validator("schema_name")
    @classmethod
    def _fits_into_an_option(cls, value: str | None) -> str | None:
        if value and not _SCHEMA.fullmatch(value):
            raise ValueError("a schema must be named without blanks, quotes and backslashes")
        return value

    @field_validator("redact")
    @classmethod
    def _are_paths(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for path in value:
            if path.split(".")[0] not in ("data", "headers") or not all(path.split(".")[1:] or [""]):
                raise ValueError(f"{path!r} names no payload: write data.email, or headers.x-user")
        return value

    @field_validator("destinations")
    @classmethod
    def _are_named(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} cannot name a destination: use letters, digits, '.', '_', '-', at most 63")
        return value

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        if self.beat_s > self.lease_s / 3:
            raise ValueError(f"beat_s ({self.beat_s:g}) must be at most a third of lease_s ({self.lease_s:g})")
        if self.page_size > self.window and "page_size" in self.model_fields_set:
            raise ValueError(f"page_size ({self.page_size}) must not be more than window ({self.window})")
        if self.short_poll_s > self.slow_poll_s:
            raise ValueError(f"short_poll_s ({self.short_poll_s:g}) is longer than slow_poll_s ({self.slow_poll_s:g})")
        return self

    @property
    def database(self) -> Database:
        """The database, understood."""
        return Database.parse(self.database_url, schema=self.schema_name)

    def origin(self, field: str) -> str:
        """Where a field's value comes from: a flag, a variable, a file, or ``"the default"``."""
        return self._origins.get(field, "the default")

    @property
    def ignored(self) -> Mapping[str, str]:
        """Variables that are set and mean nothing here: variable → why."""
        return self._ignored

    def origin_of_destination(self, name: str) -> str:
        """Where a destination comes from: a file, the variable that implies it, or ``"the default"``."""
        by = {each.name: each.variable for each in registry.implied()}
        return self._origins.get("destinations") or by.get(name) or "the default"

    def require_database_file(self) -> None:
        """Refuse an SQLite file that does not exist: opening it would create an empty one.

        Raises:
            SettingsError: Names the file and what it was taken from.
        """
        database = self.database
        if database.is_postgres or database.path.is_file():
            return
        self.require_database_folder()
        raise SettingsError(
            f"there is no database at {database.path.absolute()} (from {self._database_origin()}): "
            "run `outbox db upgrade` to create it, or point OUTBOX_DATABASE_URL at another"
        )

    def require_database_folder(self) -> None:
        """Refuse an SQLite file in a folder that does not exist: nobody can create it there.

        Raises:
            SettingsError: Names the folder and what it was taken from.
        """
        database = self.database
        if database.is_postgres or database.path.absolute().parent.is_dir():
            return
        raise SettingsError(
            f"there is no folder {database.path.absolute().parent} for the database {database.path.name} (from "
            f"{self._database_origin()}): create the folder, or mend the path. sqlite:///a/b.db is in a folder here, "
            "sqlite:////a/b.db begins at the root"
        )

    def secrets(self) -> set[str]:
        """What no log, error or page may show: passwords and shared secrets, by value."""
        found = {value for settings in self.destinations.values() for value in settings.secrets()}
        return found | url_secrets(self.database_url)

    def _database_origin(self) -> str:
        known = self._origins.get("database_url")
        return known or "the default: neither OUTBOX_DATABASE_URL nor DATABASE_URL is set"
