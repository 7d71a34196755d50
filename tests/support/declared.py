"""Find imports of distributions that pyproject.toml does not name: they are present by chance, in any version."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Set
from functools import cache
from importlib.metadata import packages_distributions
from itertools import chain

from support.sources import PACKAGES, ROOT, facts_of, sources_of


def undeclared_imports() -> list[str]:
    """Return the foreign modules that the product imports without a declared dependency."""
    declared, distributions_of = _declared(), packages_distributions()
    return sorted(
        module
        for module in foreign_modules()
        if declared.isdisjoint(map(_normal, distributions_of.get(module, [module])))
    )


@cache
def foreign_modules() -> Set[str]:
    """Return the top-level modules that the product imports, except its own and those of the standard library."""
    files = chain.from_iterable(map(sources_of, (*PACKAGES, "alembic")))
    named = {name.partition(".")[0] for file in files for name, _ in facts_of(file).imports}
    return named - sys.stdlib_module_names - {*PACKAGES}


def _declared() -> set[str]:
    """Return the distributions that pyproject.toml requires, with and without extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = chain(project["dependencies"], *project["optional-dependencies"].values())
    return {_normal(re.match(r"[A-Za-z0-9._-]+", each)[0]) for each in wanted}  # type: ignore[index]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
