"""Every import is declared as a dependency. Otherwise it is present by chance, in another package's version."""

import re

import pytest
from support.declared import foreign_modules, undeclared_imports
from support.sources import PACKAGES, ROOT

pytestmark = pytest.mark.xdist_group("sources")


def test_every_module_that_is_imported_belongs_to_a_distribution_that_is_declared():
    assert {"h11", "pamqp", "starlette", "pydantic_core", "alembic"} <= foreign_modules(), "the check sees imports"
    assert undeclared_imports() == []


def test_no_text_has_anyone_install_a_name_that_is_not_registered():
    """Anyone who registers the name would run code on the machines of those who follow such a text."""
    texts = [file for folder in (*PACKAGES, "alembic", "docs") for file in (ROOT / folder).rglob("*.*")]
    texts += [ROOT / "README.md", ROOT / "SECURITY.md"]
    advice = re.compile(r"pip install\s+(?:-\S+\s+)*['\"`]?neverlost")
    assert advice.search("pip install -U neverlost"), "the check sees such a text"
    read = {file: file.read_text(errors="ignore") for file in texts if file.suffix in {".py", ".md", ".html", ".sql"}}
    assert [file for file, text in read.items() if advice.search(text)] == []
