"""Checks of the database and of the outbox, for faults that exist or will occur soon."""

from relay.admin.doctor.examination import examine
from relay.platform.finding import Finding

__all__ = ["Finding", "examine"]
