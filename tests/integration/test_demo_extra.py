"""Without the extra `demo`, the reference worker's commands say what to install; no other command needs the extra."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pypdf", "selectolax", "snowballstemmer", "stop_words", "charset_normalizer"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from outbox_cli import main
main()
"""


def outbox(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", WITHOUT, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("arguments", [["demo"], ["extract", "a.txt"]], ids=str)
def test_what_to_install_is_said_in_one_line(tmp_path: Path, arguments: list[str]) -> None:
    ended = outbox(*arguments, cwd=tmp_path)
    assert ended.returncode == 3
    assert "install the extra demo, in a checkout with pip install '.[demo]'" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "demo" in tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_a_relay_with_its_baseline_listener_needs_nothing_of_it(tmp_path: Path) -> None:
    assert outbox("db", "upgrade", cwd=tmp_path).returncode == 0
    ended = outbox("relay", "--drain", cwd=tmp_path)
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False), ended.stderr
