"""The settings of a relay: flags, then environment, then ``outbox.toml``, then defaults."""

from relay.settings.loading import load
from relay.settings.model import DestinationSettings, Settings
from relay.settings.serve import ServeSettings

__all__ = ["DestinationSettings", "ServeSettings", "Settings", "load"]
