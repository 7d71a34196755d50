"""procrastinate: twenty jobs at a time, successful jobs deleted."""

from __future__ import annotations

from contestant import Contestant, main
from procrastinate import App, PsycopgConnector

CONCURRENCY = 20


async def prepare(url: str) -> None:
    async with App(connector=PsycopgConnector(conninfo=url)).open_async() as app:
        await app.schema_manager.apply_schema_async()


async def work(url: str, contestant: Contestant) -> None:
    app = App(connector=PsycopgConnector(conninfo=url, min_size=CONCURRENCY // 2, max_size=CONCURRENCY))

    @app.task(name="noop")
    async def handle(pad: str) -> None:
        contestant.handle()

    async with app.open_async():
        app.job_manager.fetch_job = contestant.timing(app.job_manager.fetch_job)
        contestant.begin()
        await app.run_worker_async(
            concurrency=CONCURRENCY,
            wait=not contestant.count,
            delete_jobs="always",
            listen_notify=not contestant.count,
            install_signal_handlers=False,
            fetch_job_polling_interval=0.05,
        )


if __name__ == "__main__":
    main(prepare, work, uvloop=True)
