"""The rules of ops/alerts.yml, tested with Prometheus' own tool."""

import subprocess
from pathlib import Path

from support.servers import program

OPS = Path(__file__).parents[2] / "ops"


def test_the_rules_alert_when_they_should() -> None:
    done = subprocess.run(
        [program("promtool", "prometheus"), "test", "rules", "alerts_test.yml"],
        cwd=OPS,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
