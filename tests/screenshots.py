"""Take screenshots of every page of the dashboard, light and dark, wide and narrow, with data like a day's work.

    .venv/bin/python tests/screenshots.py postgresql://postgres@127.0.0.1/shots build/screenshots

The database has to be empty. It is filled, three relays work on it, and a headless Chromium opens the dashboard.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import sqlalchemy as sa
import sqlalchemy.orm

sys.path.insert(0, str(Path(__file__).parent))

from support import showcase
from support.browser import chromium, pages_of, shoot
from support.dashboards import serving

from relay import Relay
from relay.admin.relays import live_relays
from relay.admin.status import status
from relay.databases import migrations

SIZES = ((1440, 900), (390, 844))


async def main(url: str, folder: Path) -> None:
    """Fill the database, and take the screenshots."""
    await asyncio.to_thread(migrations.upgrade, url)
    settings = showcase.settings(url)
    engine = settings.database.engine()
    async with AsyncExitStack() as stack:
        for _ in range(1 if settings.database.is_file else 3):
            await stack.enter_async_context(Relay(settings))
        showcase.emit_orders(engine, 900)
        await _settled(engine)
        showcase.add_oddities(engine)
        for topics, title in ((10, "A note on caches"), (48, "Streams and shards"), (300, "The whole handbook")):
            showcase.add_document(engine, f"doc-{topics}", title, topics)
        async with asyncio.TaskGroup() as group:
            traffic = group.create_task(_emit(engine))
            await _sampled(engine)
            showcase.add_samples(engine)
            await asyncio.to_thread(_look, settings, engine, folder)
            traffic.cancel()
    engine.dispose()


async def _sampled(engine: sa.Engine) -> None:
    """Wait until the relays have written what they did so far, and delete it."""
    while True:
        with engine.begin() as connection:
            counted = sa.text("SELECT count(DISTINCT relay) FROM outbox_sample")
            if connection.scalar(counted) > len(live_relays(connection)):  # one row is that of the whole outbox
                connection.execute(sa.text("DELETE FROM outbox_sample"))
                return
        await asyncio.sleep(0.2)


async def _emit(engine: sa.Engine) -> None:
    """Emit as many messages a second as the latest samples say, so that the plots go on."""
    for number in itertools.count():
        await asyncio.to_thread(showcase.emit_orders, engine, 11, first=23 * number + 1)  # none that is refused
        await asyncio.sleep(0.2)


async def _settled(engine: sa.Engine) -> None:
    while True:
        with engine.connect() as connection:
            found = status(connection).destinations.values()
        if sum(each.state == "healthy" for each in found) == 4 and all(
            each.waiting == each.parked for each in found if each.state == "healthy"
        ):
            return
        await asyncio.sleep(0.2)


def _look(settings: object, engine: sa.Engine, folder: Path) -> None:
    with serving(settings, allow_changes=True) as dashboard, chromium() as browser:  # type: ignore[arg-type]
        for scheme in ("light", "dark"):
            for width, height in SIZES:
                with dashboard.logged_in(browser, scheme=scheme, width=width, height=height) as page:
                    for name, path in pages_of(engine).items():
                        shoot(page, dashboard.url + path, folder / f"{name}-{scheme}-{width}.png")


if __name__ == "__main__":
    Path(sys.argv[2]).mkdir(parents=True, exist_ok=True)
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
