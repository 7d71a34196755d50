"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

HealthHost = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="The address of the health pages; default: this machine only.")
]
HealthPort = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65_535,
        help="The port of /healthz, /readyz, /metrics; 0: no pages. Default: health_port; without it a relay has 9810, "
        "and consume has no pages.",
    ),
]

Type = Annotated[str | None, typer.Option("--type", help="Only this event type; * stands for any text.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
Reason = Annotated[str | None, typer.Option("--reason", help="For the record: `outbox audit` shows it.")]
