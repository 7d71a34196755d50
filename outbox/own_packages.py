"""Load our own packages where the host application has packages of the same names.

A host may have a package ``listeners`` or ``relay``. Python keeps one module per name, and takes the first one that it
finds on ``sys.path``. If a host has such a package, ours is loaded under a private name from the directory of this
file. The host's package keeps the plain name, so its listeners are found, and our imports never reach it.

    name        if the host has no such package    if the host has one
    listeners   ours                               the host's; ours is _neverlost_listeners

Our modules that import such a package are compiled with the private name in their imports. If the host has no such
package, nothing is changed. Decision 0023 lists the alternatives.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

PACKAGES = ("relay", "listeners", "outbox_demo")  # names that a host may use for its own packages
PRIVATE = "_neverlost_"
ROOT = Path(__file__).absolute().parents[1]


def make_way(further: Sequence[str] = ()) -> None:
    """Load our packages under private names where the host has packages of the same names.

    Call this before any of our packages is imported.

    Args:
        further: Directories that are added to the path later.
    """
    free = [name for name in PACKAGES if not _is_loaded(name)]
    taken = {name: entry for name in free if (entry := _host_of(name, [*sys.path, *further])) is not None}
    if taken and _finder() is None:
        sys.meta_path.insert(0, _Finder(taken))


def load(name: str) -> ModuleType:
    """Import one of our modules, under the name that it has in this process.

    Args:
        name: Its plain name, for example ``"listeners.baseline"``.
    """
    make_way()
    finder = _finder()
    return import_module(finder.private(name) if finder is not None else name)


def plain(name: str) -> str:
    """Return the plain name of a module, for messages and for storage."""
    return name.removeprefix(PRIVATE)


def _finder() -> _Finder | None:
    return next((each for each in sys.meta_path if isinstance(each, _Finder)), None)


def _is_loaded(name: str) -> bool:
    """Return whether our package of this name has been imported already, under its plain name."""
    file = getattr(sys.modules.get(name), "__file__", None)
    return file is not None and Path(file).absolute().is_relative_to(ROOT / name)


def _host_of(name: str, entries: Sequence[str]) -> str | None:
    """Return the first directory of the path with a package or a module of this name that is not ours."""
    for directory in map(Path, entries):
        package, module = directory / name, directory / f"{name}.py"
        is_ours = (directory / "outbox" / "own_packages.py").is_file()
        if not is_ours and (module.is_file() or (package.is_dir() and any(package.glob("*.py")))):
            return str(directory)
    return None


class _Finder:
    """Finds our modules in their own directory, and a host's modules in the host's.

    Args:
        taken: The names that the host uses, with the directory of each.
    """

    def __init__(self, taken: Mapping[str, str]) -> None:
        self._taken = taken
        self._ours = {PRIVATE + name if name in taken else name for name in (*PACKAGES, "outbox_cli")}

    def private(self, name: str) -> str:
        """Return the name under which one of our modules is loaded here."""
        return PRIVATE + name if name.partition(".")[0] in self._taken else name

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top = name.partition(".")[0]
        if name in self._taken:
            return PathFinder.find_spec(name, [self._taken[name]])
        if top not in self._ours:
            return None
        if name == top:
            package = ROOT / plain(name)
            loader = _Loader(name, str(package / "__init__.py"), self)
            return spec_from_file_location(name, loader.path, loader=loader, submodule_search_locations=[str(package)])
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(name, spec.origin, self)
        return spec


class _Loader(SourceFileLoader):
    """Compiles one of our modules with the private names in its imports."""

    def __init__(self, name: str, path: str, finder: _Finder) -> None:
        super().__init__(name, path)
        self._finder = finder

    def get_code(self, fullname: str) -> CodeType | None:
        path = self.get_filename(fullname)
        tree = ast.parse(self.get_data(path))
        # The compiled code differs from the source, so it must not be cached beside it.
        is_changed = sum(self._rename(node) for node in ast.walk(tree)) > 0
        return compile(tree, path, "exec", dont_inherit=True) if is_changed else super().get_code(fullname)

    def _rename(self, node: ast.AST) -> bool:
        """Rename an import of a package whose name the host uses; return whether the node was such an import."""
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            before, node.module = node.module, self._finder.private(node.module)
            return node.module != before
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            for alias in node.names:
                alias.name = self._finder.private(alias.name) if alias.asname else alias.name
            return names != [alias.name for alias in node.names]
        return False
