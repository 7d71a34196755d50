"""The options for a process's health pages."""

from __future__ import annotations

from typing import Annotated

import typer

HealthHost = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="The address of the health pages; default: this machine only.")
]
HealthPort = Annotated[
    int | None, typer.Option(min=0, max=65_535, help="The port of /healthz, /readyz, /metrics; 0: no pages.")
]
