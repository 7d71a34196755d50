"""Every import is declared as a dependency. Otherwise it is present by chance, in another package's version."""

import pytest
from support.declared import foreign_modules, undeclared_imports

pytestmark = pytest.mark.xdist_group("sources")


def test_every_module_that_is_imported_belongs_to_a_distribution_that_is_declared():
    assert {"h11", "pamqp", "starlette", "pydantic_core", "alembic"} <= foreign_modules(), "the check sees imports"
    assert undeclared_imports() == []
