"""Housekeeping without a relay."""

from relay import Settings
from relay.admin.housekeeping import Housekeeping
from relay.observe.metrics import Metrics


def housekeeping_with(settings: Settings) -> Housekeeping:
    """Return the periodic work of a relay that has these settings, to run its jobs one by one."""
    return Housekeeping(settings, relay_id="housekeeper", metrics=Metrics())
