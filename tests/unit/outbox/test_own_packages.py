"""Beside a host with a package of the same name, our package has another name, which a name in a text would miss."""

import ast
import re
from pathlib import Path

from outbox.own_packages import PACKAGES
from relay.platform.guide import BASELINE_LISTENER

PROJECT = Path(__file__).parents[3]
NAME = re.compile(rf"({'|'.join(PACKAGES)})\.[\w.]*(:\w+)?")


def test_no_module_of_ours_is_imported_by_a_name_that_is_written_as_text() -> None:
    files = [path for package in (*PACKAGES, "outbox_cli") for path in (PROJECT / package).rglob("*.py")]
    texts = {
        (path.relative_to(PROJECT).as_posix(), node.value)
        for path in files
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and NAME.fullmatch(node.value)
    }
    # `relay.destinations.listener.loading` loads this one with `own_packages.load`.
    assert texts == {("relay/platform/guide.py", BASELINE_LISTENER)}
