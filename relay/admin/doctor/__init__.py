"""Checks of the database and of the outbox, for faults that are present or near."""

from relay.admin.doctor.examination import examine
from relay.admin.doctor.finding import Finding

__all__ = ["Finding", "examine"]
