"""Register the destinations when a relay starts: wait for the database, or say why waiting is useless."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import chain

import sqlalchemy as sa
import structlog

from outbox.errors import Unusable
from relay.admin.access.opening import explained
from relay.admin.destinations.registration import Registration, register
from relay.destinations import registry
from relay.owner.outage import reconnect_s
from relay.platform.database import is_refusal
from relay.platform.rights import RELAY, Right
from relay.settings import Settings
from relay.store.contract import Standby

log = structlog.get_logger("relay")


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
        except sa.exc.OperationalError as error:
            if is_refusal(error.orig) or not wait_for_database:
                found = explained(error, settings.database)
                raise found or Unusable(f"{settings.database}: {error.orig}") from error
            if failures == 0:
                reason = " ".join(str(error.orig).split())
                log.warning("database_unreachable", database=str(settings.database), reason=reason)
        failures += 1
        await asyncio.sleep(reconnect_s(failures))


def _needs(settings: Settings) -> Sequence[Right]:
    further = (registry.kind(each.kind).needs(each) for each in settings.destinations.values())
    return list(dict.fromkeys([*RELAY, *chain.from_iterable(further)]))
