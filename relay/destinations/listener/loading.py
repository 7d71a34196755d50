"""Import the callable that a setting names."""

from __future__ import annotations

import importlib
import traceback
import typing
from collections.abc import Callable
from typing import Any

from outbox import own_packages
from outbox.errors import SettingsError
from relay.platform.guide import BASELINE_LISTENER


def load(listener: str | Callable[..., Any]) -> Callable[..., Any]:
    """Return the callable that ``module:callable`` names.

    Raises:
        SettingsError: The callable does not exist, or its module cannot be imported.
    """
    if not isinstance(listener, str):
        return listener
    module, _, attribute = listener.partition(":")
    try:
        found = own_packages.load(module) if listener == BASELINE_LISTENER else importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise SettingsError(
            f"the listener {listener!r} cannot be loaded ({error}); the installed packages and the current "
            "directory are searched"
        ) from error
    except (Exception, SystemExit) as error:  # a module may raise any error when it is imported
        at = traceback.extract_tb(error.__traceback__)[-1]
        raise SettingsError(
            f"the listener {listener!r} cannot be loaded: importing {module} raised "
            f"{type(error).__name__}: {error} (at {at.filename}:{at.lineno})"
        ) from error
    if not callable(found):
        raise SettingsError(f"{listener!r} is not callable: name a function, as in my_app.reports:on_completed")
    return typing.cast("Callable[..., Any]", found)
