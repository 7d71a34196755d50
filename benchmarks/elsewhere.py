"""Lines 3 and 4: HTTP and RabbitMQ have benchmarks of their own, which set their own targets; these run them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

from benchmarks.results import Ratio, Result
from benchmarks.running import ROOT, Bench


def run_of(line: int, module: str, title: str) -> Callable[[Bench], Result]:
    """What runs a module as a user would, and keeps what it prints."""

    def run(bench: Bench) -> Result:
        command = [sys.executable, "-m", module, "--rounds", str(bench.rounds)]
        if bench.quick or bench.messages:
            command += ["--messages", str(bench.many(10_000))]
        done = subprocess.run(
            [*command, "--database-url", bench.scratch.create("elsewhere")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"},
        )
        result = bench.result(line, title, command=f"python -m {module}")
        if done.returncode not in (0, 1) or not done.stdout:
            result.missing.append((done.stderr.strip() or "it failed").splitlines()[-1])
        else:
            result.text = "\n".join(line for line in done.stdout.rstrip().splitlines() if " [info " not in line)
            result.add("all of its own targets met", 1.0 - done.returncode, "(1: yes)")
        return result

    return run


def judge(result: Result) -> None:
    name = "all of its own targets met"
    if result.has(name):
        result.ratios.append(Ratio(f"{result.title}: {name}", result.rounds[name][-1], 1.0, unit="(1: yes)"))
