"""What a type checker says about calls of `emit`: it finds a misspelt option before anything runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

ADOPTER = """
from datetime import timedelta
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import Session
from outbox import Draft, Event, Outbox, emit, emit_async, emit_many, emit_many_async

class PageRead(Event, type="page.read"):
    n: int

def fine(s: Session, c: Connection) -> None:
    one: str = emit(s, PageRead(n=1), ordering_key="k", delay=timedelta(hours=1), id="x")
    emit(c, "page.read", {"n": 1}, headers={"a": "b"}, strict_order=True)
    many: list[str] = emit_many(s, [PageRead(n=1), ("page.read", {}), Draft("page.read", {})], ordering_key="k")
    Outbox(schema="billing").emit(s, "page.read", [1], subject="s")

async def fine_too(c: AsyncConnection) -> None:
    one: str = await emit_async(c, "page.read", {}, due_at=None)
    many: list[str] = await emit_many_async(c, [PageRead(n=1)], delay=5)

def wrong(s: Session) -> None:
    emit(s, "page.read")  # refused
    emit(s, PageRead(n=1), odering_key="k")  # refused
    emit(s, "page.read", {}, delay="5")  # refused
    emit_many(s, [PageRead(n=1)], odering_key="k")  # refused
    emit_many(s, [PageRead(n=1)], id="x")  # refused
    emit_many(s, ["page.read"])  # refused

async def wrong_too(c: AsyncConnection) -> None:
    await emit_async(c, "page.read")  # refused
    await emit_async(c, PageRead(n=1), odering_key="k")  # refused
    await emit_many_async(c, [PageRead(n=1)], strict_oder=True)  # refused
"""


@pytest.mark.timeout(300)
def test_mypy_finds_misspelt_options_and_missing_data_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "adopter.py").write_text(ADOPTER)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-incremental", "adopter.py"]
    environ = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    found = {int(line) for line in re.findall(r"^adopter\.py:(\d+): error", done.stdout, re.MULTILINE)}
    wanted = {number for number, line in enumerate(ADOPTER.splitlines(), 1) if line.endswith("# refused")}
    assert found == wanted, done.stdout + done.stderr
