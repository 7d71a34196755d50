"""Print the shape of the code: ``python -m tests.shape``. A unit test holds each number at its limit.

It counts circles of imports, imports against the layers, files and functions that are too long, folders with too
many entries, siblings that import each other for their types only, and imports that pyproject.toml does not declare.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import structlog

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))  # as pytest does

from support.sources import PACKAGES, ROOMS, ROOT, Facts, facts_of, module_name, sources_of

FILE_LINES = 300
FUNCTION_LINES = 40
MEDIAN_LINES = 6
FOLDER_ENTRIES = 12
ROOMS_PASSED = 10  # folders: `python -m tests.support.way` prints them

# From the top down: a package imports nothing from a line above its own. Packages of one line are equals.
RELAY_LAYERS: Sequence[set[str]] = (
    {"relay.relay"},
    {"relay.owner", "relay.delivery"},
    {"relay.seam"},
    {"relay.admin"},
    {"relay.settings"},
    {"relay.destinations"},
    {"relay.databases"},
    {"relay.platform"},
    {"relay.observe"},
    {"relay.serving"},
    {"relay.decide"},
)
# `outbox.testing` drains a relay and checks destinations, when a test asks for it.
UPWARD_ALLOWED = ("outbox.testing",)
ENTRIES_NOT_COUNTED = {"__init__.py", "__main__.py", "__pycache__", "py.typed"}


@dataclass(frozen=True)
class Import:
    """One import of a module, ours or foreign."""

    importer: str
    imported: str
    for_types_only: bool


@dataclass
class Source:
    """One file of the product."""

    path: Path
    module: str
    facts: Facts

    @property
    def functions(self) -> list[tuple[str, int]]:
        """Each function's name and the lines of its body, without the docstring."""
        return [(f"{self.module}.{name}", lines) for name, lines in self.facts.functions]


@dataclass
class Shape:
    """The product's sources, and the counts of what is in them.

    Args:
        root: Where the packages lie.
    """

    root: Path
    sources: list[Source] = field(default_factory=list)

    def __post_init__(self) -> None:
        for package in PACKAGES:
            for path in sources_of(package, self.root):
                self.sources.append(Source(path, module_name(path, self.root), facts_of(path, self.root)))

    # --------------------------------------------------------------- imports

    @cached_property
    def modules(self) -> set[str]:
        return {source.module for source in self.sources}

    @cached_property
    def imports(self) -> list[Import]:
        """All imports anywhere in the files: of ours the module, of others the name."""
        return [
            Import(source.module, self._nearest(name), for_types_only)
            for source in self.sources
            for name, for_types_only in source.facts.imports
        ]

    def _nearest(self, name: str) -> str:
        """Return the module that a dotted name is in: the name may be that of something in it."""
        parent = name.rpartition(".")[0]
        return parent if name not in self.modules and parent in self.modules else name

    @property
    def upward_imports(self) -> list[str]:
        return sorted(
            f"{each.importer} -> {each.imported}"
            for each in set(self.imports)
            if _rank(each.imported) > _rank(each.importer) and not each.importer.startswith(UPWARD_ALLOWED)
        )

    @property
    def circles(self) -> list[str]:
        """Groups of modules that import themselves through each other."""
        graph: dict[str, set[str]] = {module: set() for module in self.modules}
        for each in self.imports:
            is_own_package = each.imported == each.importer or each.importer.startswith(f"{each.imported}.")
            if each.imported in graph and not is_own_package:
                graph[each.importer].add(each.imported)
        return sorted(" <-> ".join(sorted(circle)) for circle in _circles(graph))

    @property
    def type_imports_between_siblings(self) -> list[str]:
        return sorted(
            f"{each.importer} -> {each.imported}"
            for each in set(self.imports)
            if each.for_types_only
            and each.importer != each.imported
            and each.importer.rpartition(".")[0] == each.imported.rpartition(".")[0]
        )

    @property
    def branches_on_databases(self) -> list[str]:
        """Tests of which database it is, outside the rooms of the databases."""
        return sorted(
            f"{source.module}:{line}"
            for source in self.sources
            if not ROOMS.match(source.module)
            for line in source.facts.branches
        )

    # ------------------------------------------------------------------ sizes

    @property
    def long_files(self) -> list[str]:
        return [f"{s.module} ({s.facts.line_count})" for s in self.sources if s.facts.line_count > FILE_LINES]

    @property
    def long_functions(self) -> list[str]:
        return [f"{name} ({n})" for s in self.sources for name, n in s.functions if n > FUNCTION_LINES]

    @property
    def median_function(self) -> float:
        return statistics.median(n for source in self.sources for _, n in source.functions)

    @property
    def full_folders(self) -> list[str]:
        folders = sorted({source.path.parent for source in self.sources})
        counts = {folder: len(_entries(folder)) for folder in folders}
        return [f"{f.relative_to(self.root)} ({n})" for f, n in counts.items() if n > FOLDER_ENTRIES]

    @property
    def findings(self) -> Mapping[str, list[str]]:
        """Return what should not be there, by kind."""
        return {
            "import circles": self.circles,
            "upward imports": self.upward_imports,
            "type imports between siblings": self.type_imports_between_siblings,
            "branches on databases": self.branches_on_databases,
            f"files of more than {FILE_LINES} lines": self.long_files,
            f"functions of more than {FUNCTION_LINES} lines": self.long_functions,
            f"folders of more than {FOLDER_ENTRIES} entries": self.full_folders,
        }


def _rank(module: str) -> float:
    """Return the layer of a module; foreign modules are below all layers."""
    top = module.partition(".")[0]
    if top not in PACKAGES:
        return -1
    if module == "relay":
        return PACKAGES.index(top) + 0.9
    within = [at for at, layer in enumerate(RELAY_LAYERS) if ".".join(module.split(".")[:2]) in layer]
    return PACKAGES.index(top) + (0.9 - 0.01 * within[0] if within else 0)


def _circles(graph: Mapping[str, set[str]]) -> Iterator[set[str]]:
    """Tarjan's strongly connected components, those of more than one module."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(module: str) -> Iterator[set[str]]:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in sorted(graph[module]):
            if other not in index:
                yield from visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            at = stack.index(module)
            found = set(stack[at:])
            del stack[at:]
            if len(found) > 1:
                yield found

    for module in sorted(graph):
        if module not in index:
            yield from visit(module)


def _entries(folder: Path) -> list[str]:
    """Return the entries of a folder of sources that a reader chooses from."""
    return [
        each.name
        for each in folder.iterdir()
        if each.name not in ENTRIES_NOT_COUNTED and (each.suffix == ".py" or any(each.glob("*.py")))
    ]


def main() -> None:
    """Print each number, and what it counts."""
    shape = Shape(Path(sys.argv[1]) if sys.argv[1:] else ROOT)
    functions = sum(len(source.functions) for source in shape.sources)
    lines = sum(source.facts.line_count for source in shape.sources)
    print(f"{len(shape.sources)} files, {lines} lines, {functions} functions")
    print(f"median lines of a function: {shape.median_function:g} (at most {MEDIAN_LINES})")
    for what, found in shape.findings.items():
        print(f"{what}: {len(found)}")
        for each in found:
            print(f"    {each}")
    from support.declared import undeclared_imports
    from support.way import measure

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger("error")
    )  # the relay's life is not asked for
    print(f"undeclared imports: {len(undeclared := undeclared_imports())}", *undeclared)
    print(f"rooms that a plain message passes: {len(measure().rooms)} (at most {ROOMS_PASSED})")


if __name__ == "__main__":
    main()
