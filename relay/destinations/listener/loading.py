"""Import the callable that a setting names."""

from __future__ import annotations

import difflib
import importlib
import traceback
import typing
from collections.abc import Callable
from typing import Any

from outbox import own_packages
from outbox.errors import SettingsError
from relay.observe.errors import in_words
from relay.platform.guide import BASELINE_LISTENER


def load(listener: str | Callable[..., Any]) -> Callable[..., Any]:
    """Return the callable that ``module:callable`` names.

    Raises:
        SettingsError: The callable does not exist, or its module cannot be imported.
    """
    if not isinstance(listener, str):
        return listener
    module, _, attribute = listener.partition(":")
    found = _imported(module, listener)
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        close = difflib.get_close_matches(error.name or "", dir(error.obj), n=1)
        do = f"did you mean {close[0]}?" if close else "correct the name after the colon"
        raise SettingsError(f"the listener {listener!r} cannot be loaded: {error}; {do}") from error
    if not callable(found):
        raise SettingsError(f"{listener!r} is not callable: name a function, as in my_app.reports:on_completed")
    return typing.cast("Callable[..., Any]", found)


def _imported(module: str, listener: str) -> Any:
    try:
        return own_packages.load(module) if listener == BASELINE_LISTENER else importlib.import_module(module)
    except ImportError as error:
        is_itself = error.name is not None and f"{module}.".startswith(f"{error.name}.")
        is_missing = is_itself and isinstance(error, ModuleNotFoundError)
        do = (
            "the installed packages and the current directory were searched: correct the name, or change the directory"
            if is_missing
            else f"{module} imports it: install it, or correct that import"
        )
        raise SettingsError(f"the listener {listener!r} cannot be loaded: {error}; {do}") from error
    except (Exception, SystemExit) as error:  # a module may raise any error when it is imported
        at = traceback.extract_tb(error.__traceback__)[-1]
        raise SettingsError(
            f"the listener {listener!r} cannot be loaded: importing {module} raised "
            f"{in_words(error)} (at {at.filename}:{at.lineno})"
        ) from error
