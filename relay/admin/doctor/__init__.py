"""What will bite: checks of the database, and of what waits in it."""

from relay.admin.doctor.examination import examine
from relay.admin.doctor.finding import Finding

__all__ = ["Finding", "examine"]
