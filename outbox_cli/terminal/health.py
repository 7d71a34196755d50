"""The options that say where a process shows its health."""

from __future__ import annotations

from typing import Annotated

import typer

HealthHost = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Where health pages are; default: on this machine only.")
]
HealthPort = Annotated[
    int | None, typer.Option(min=0, max=65_535, help="Serve /healthz, /readyz, /metrics here; 0: nowhere.")
]
