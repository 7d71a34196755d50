"""A listener that cannot be loaded is refused with the name that is wrong, and with what to do."""

from pathlib import Path

import pytest

from outbox.errors import SettingsError
from relay.destinations.listener.loading import load

MODULES = {
    "sound": "def on_completed(message): ...\n",
    "needing": "import no_such_library\n",
    "old": "from pathlib import no_such_name\n",
    "broken": "import os\nos.no_such_name\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"pack_{tmp_path.name.replace('-', '_')}"
    (tmp_path / name).mkdir()
    for module, text in MODULES.items():
        (tmp_path / name / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.mark.parametrize(
    ("listener", "says"),
    [
        ("sound:on_complete", "has no attribute 'on_complete'; did you mean on_completed?"),
        ("sound:xyz", "has no attribute 'xyz'; correct the name after the colon"),
        (
            "sond:on_completed",
            "sond'; the installed packages and the current directory were searched: correct the name",
        ),
        ("needing:on_completed", "No module named 'no_such_library'; {package}.needing imports it: install it"),
        ("old:on_completed", "{package}.old imports it: install it, or correct that import"),
        ("broken:on_completed", "importing {package}.broken raised AttributeError: "),
    ],
)
def test_a_listener_that_cannot_be_loaded_is_refused_with_the_remedy(package: str, listener: str, says: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load(f"{package}.{listener}")
    assert says.format(package=package) in str(raised.value)
