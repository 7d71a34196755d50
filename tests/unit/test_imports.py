"""A worker's image may be slim: `import outbox` loads SQLAlchemy and pydantic, and nothing heavier."""

import json
import subprocess
import sys
import sysconfig

import pytest

ALLOWED = {
    "outbox",
    "sqlalchemy",
    "greenlet",
    "pydantic",
    "pydantic_core",
    "annotated_types",
    "typing_extensions",
    "typing_inspection",
}

# Modules without a file are not counted: they are built in, or made up at run time (Cython's, in SQLAlchemy).
LOADED_BY = """
import json, sys
before = set(sys.modules)
import {module}
files = {{name: getattr(sys.modules[name], "__file__", None) for name in set(sys.modules) - before}}
print(json.dumps({{name: file for name, file in files.items() if file}}))
"""


def packages_loaded_by(module: str) -> set[str]:
    """The installed packages, ours included, that a fresh interpreter loads for `module`."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOADED_BY.format(module=module)], capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name, file in json.loads(done.stdout).items() if not is_standard_library(file)}


def is_standard_library(file: str) -> bool:
    in_its_directory = any(file.startswith(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))
    return in_its_directory and "site-packages" not in file


def test_importing_outbox_loads_sqlalchemy_and_pydantic_and_nothing_heavier():
    assert packages_loaded_by("outbox") - ALLOWED == set()


@pytest.mark.parametrize("package", ["relay", "listeners", "outbox_demo"])
def test_importing_outbox_loads_no_other_package_of_ours(package):
    assert package not in packages_loaded_by("outbox")


def test_the_check_sees_what_a_package_loads():
    assert {"alembic", "sqlalchemy"} <= packages_loaded_by("alembic")


def test_the_help_does_not_wait_for_what_commands_need():
    assert packages_loaded_by("relay.cli.app") & {"sqlalchemy", "pydantic", "alembic", "aiohttp"} == set()
