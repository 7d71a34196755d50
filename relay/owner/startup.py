"""Start a relay: choose its store, and register its destinations as soon as the database can be reached."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import chain

import sqlalchemy as sa
import structlog

from outbox.errors import Unusable
from relay.admin.access.opening import explained
from relay.admin.destinations.registration import Registration, register
from relay.databases.rights import RELAY, Right
from relay.databases.store.contract import Standby, Store
from relay.destinations import registry
from relay.owner.outage import reconnect_s
from relay.settings import Settings

log = structlog.get_logger("relay")


def open_store(settings: Settings) -> Store:
    """Return the store for the configured database."""
    return settings.database.store(
        lease_s=settings.lease_s,
        keep_history=settings.retention_days > 0,
        notify=settings.notify,
        skipping=[name for name, each in settings.destinations.items() if each.on_dead == "skip"],
    )


async def register_configured(settings: Settings, *, apply: bool, wait_for_database: bool) -> int:
    """Register the configured destinations; return their generation.

    Args:
        settings: The configured destinations, and the database.
        apply: Register them when others are registered.
        wait_for_database: Whether to wait without a limit for a database that cannot be reached.

    Raises:
        Unusable: The database, its schema or the registered destinations do not allow the relay to work.
    """
    wanted = [
        Registration(name, s.kind, tuple(s.events), s.on_dead, s.rate) for name, s in settings.destinations.items()
    ]
    needs = _needs(settings)
    failures = 0
    while True:
        try:
            return await asyncio.to_thread(register, settings.database, wanted, apply=apply, needs=needs)
        except Standby as error:
            if not wait_for_database:
                raise Unusable(str(error)) from error
            if failures == 0:
                log.warning("waiting", database=str(settings.database), reason=str(error))
        except sa.exc.DBAPIError as error:
            is_outage = isinstance(error, sa.exc.OperationalError)
            found = explained(error, settings.database)
            if not is_outage or settings.database.dialect.is_refusal(error.orig) or not wait_for_database:
                if found is None and not is_outage:
                    raise
                raise found or Unusable(f"{settings.database}: {error.orig}") from error
            if failures == 0:
                reason = str(found) if found else " ".join(str(error.orig).split())
                log.warning("database_unreachable", database=str(settings.database), reason=reason)
        failures += 1
        await asyncio.sleep(reconnect_s(failures))


def _needs(settings: Settings) -> Sequence[Right]:
    further = (registry.kind(each.kind).needs(each) for each in settings.destinations.values())
    return list(dict.fromkeys([*RELAY, *chain.from_iterable(further)]))
