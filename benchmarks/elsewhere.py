"""Run lines 3 and 4: HTTP and RabbitMQ have separate benchmarks, which set their own targets."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

from benchmarks import http, rabbitmq
from benchmarks.results import Result
from benchmarks.running import ROOT, Bench


def run_of(line: int, module: str, title: str) -> Callable[[Bench], Result]:
    """Return the command that runs a module as a user would, in a separate process."""

    def run(bench: Bench) -> Result:
        command = [sys.executable, "-m", module, "--json", "--rounds", str(bench.rounds)]
        if bench.quick or bench.messages:
            command += ["--messages", str(bench.many(10_000))]
        command += ["--database-url", bench.scratch.create("elsewhere")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        result = bench.result(line, title, command=f"python -m {module}")
        if done.returncode:
            result.missing.append((done.stderr.strip() or "it failed").splitlines()[-1])
            return result
        for name, found in json.loads(done.stdout.splitlines()[-1]).items():
            for each in found:
                result.add(name, each)
        return result

    return run


def judge_http(result: Result) -> None:
    for over, under, wanted in http.RATIOS:
        result.compare(f"{over} : {under}", over, under, wanted)


def judge_rabbitmq(result: Result) -> None:
    name = f"{rabbitmq.RELAY} : {rabbitmq.LOOP}"
    result.compare(name, rabbitmq.RELAY, rabbitmq.LOOP, rabbitmq.WANTED)
