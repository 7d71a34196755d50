"""The settings of a relay, in one immutable object."""

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
from relay.databases.database import Database
from relay.destinations import registry
from relay.destinations.policy import DestinationPolicy, url_secrets
from relay.platform.units.durations import Days, Seconds
from relay.settings.serve import ServeSettings

DEFAULT_DATABASE_URL = "sqlite:///outbox.db"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SCHEMA = re.compile(r"""[^\s"'\\]+""")  # it becomes part of libpq's options


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _listed(value: object) -> object:
    return [each.strip() for each in value.split(",") if each.strip()] if isinstance(value, str) else value


def _of_its_kind(value: object) -> object:
    """Validate a destination by the model of its kind."""
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

    `relay.settings.load` makes them from flags, environment and file. If they are made directly, neither environment
    nor file is read.

    Args:
        database_url: ``postgresql://…`` or ``sqlite:///path``.
        schema_name: The PostgreSQL schema (``OUTBOX_SCHEMA``; ``schema`` in the file).
        destinations: Name → the settings of a destination.
        serve: The settings of `outbox serve`.
        lease_s: How long a relay may be silent before it can lose its shards, in seconds.
        beat_s: The interval at which a relay shows that it is alive, in seconds; at most a third of the lease.
        short_poll_s: The interval at which a busy relay reads messages, in seconds.
        slow_poll_s: The interval at which a sleeping relay reads messages, even without a notification, in seconds.
        quiet_s: How long a busy relay has nothing to do before it goes to sleep, in seconds.
        page_size: The maximum number of messages in one read; never more than a quarter of the window.
        window: The maximum number of messages that a relay holds unsettled.
        grace_s: How long an orderly stop waits for deliveries under way, in seconds.
        stall_timeout_s: How long the event loop may be blocked before the process ends itself, in seconds.
        retention_days: How long delivered messages are kept, in days; 0 keeps none.
        inbox_retention_days: How long the inbox keeps its marks, in days.
        health_host: The address of /healthz, /readyz and /metrics; default: the loopback address.
        health_port: The port of these pages; 0 switches them off.
        notify: Whether LISTEN/NOTIFY wakes up relays. Switch it off if transactions use two-phase commit: then workers
            do not notify, and relays only poll.
        redact: Payload that pages and commands mask, by path: ``data.email``, ``headers.x-user``.
        trace_children: Whether a span that processes a message is a child of the span that created it; if not, it is
            only linked to it.
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
    page_size: int = Field(default=1500, ge=1, le=10_000)
    window: int = Field(default=6000, ge=1, le=100_000)
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
        try:
            Database.parse(value)
        except SettingsError as error:
            raise ValueError(error) from None  # so that the variable is named, and other faults beside it
        return value

    @field_validator("schema_name")
    @classmethod
    def _fits_into_an_option(cls, value: str | None) -> str | None:
        if value and not _SCHEMA.fullmatch(value):
            raise ValueError("write the name of a schema without blanks, quotes and backslashes")
        return value

    @field_validator("redact")
    @classmethod
    def _are_paths(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for path in value:
            if path.split(".")[0] not in ("data", "headers") or not all(path.split(".")[1:] or [""]):
                raise ValueError(f"{path!r} is not a path of a payload: write data.email, or headers.x-user")
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
        """The parsed database URL."""
        return Database.parse(self.database_url, schema=self.schema_name)

    def origin(self, field: str) -> str:
        """Return the origin of a field's value: a flag, a variable, a file, or ``"the default"``."""
        return self._origins.get(field, "the default")

    @property
    def ignored(self) -> Mapping[str, str]:
        """Variables that are set and have no effect here: variable → the reason."""
        return self._ignored

    def origin_of_destination(self, name: str) -> str:
        """Return the origin of a destination: a file, the variable that implies it, or ``"the default"``."""
        by = {each.name: each.variable for each in registry.implied()}
        return self._origins.get("destinations") or by.get(name) or "the default"

    def require_database_file(self) -> None:
        """Refuse an SQLite file that does not exist: opening it would create an empty one.

        Raises:
            SettingsError: The text names the file and the setting that it comes from.
        """
        database = self.database
        if not database.is_file or database.path.is_file():
            return
        self.require_database_folder()
        raise SettingsError(
            f"there is no database at {database.path.absolute()} (from {self._database_origin()}): "
            "run `outbox db upgrade` to create it, or point OUTBOX_DATABASE_URL at another"
        )

    def require_database_folder(self) -> None:
        """Refuse an SQLite file in a folder that does not exist, where it could not be created.

        Raises:
            SettingsError: The text names the folder and the setting that it comes from.
        """
        database = self.database
        if not database.is_file or database.path.absolute().parent.is_dir():
            return
        raise SettingsError(
            f"there is no folder {database.path.absolute().parent} for the database {database.path.name} (from "
            f"{self._database_origin()}): create it, or correct the path. sqlite:///a/b.db is a path from here, "
            "sqlite:////a/b.db begins at the root"
        )

    def secrets(self) -> set[str]:
        """Return the values that no log, error or page may show: passwords and shared secrets."""
        found = {value for settings in self.destinations.values() for value in settings.secrets()}
        return found | url_secrets(self.database_url)

    def _database_origin(self) -> str:
        if known := self._origins.get("database_url"):
            return known
        if "database_url" in self.model_fields_set:
            return "the argument database_url"
        return "the default: neither OUTBOX_DATABASE_URL nor DATABASE_URL is set"
