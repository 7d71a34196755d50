"""The documentation site: `sphinx-build -W docs docs/_build` (`pip install -e '.[docs]'`)."""

from importlib.metadata import version as version_of

project = "neverlost"
copyright = "the neverlost authors"
version = release = version_of("neverlost")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = f"neverlost {release}"
html_copy_source = False
