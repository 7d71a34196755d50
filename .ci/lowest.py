"""Print constraints that pin each dependency to its lowest permitted version.

The extras are included, except `test`, whose tools are the newest.
"""

import re
import tomllib
from pathlib import Path

REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?>=([^,;\s]+)")

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
extras = [each for name, extra in project["optional-dependencies"].items() if name != "test" for each in extra]
for requirement in project["dependencies"] + extras:
    if found := REQUIREMENT.match(requirement):
        print(f"{found[1]}=={found[2]}")
