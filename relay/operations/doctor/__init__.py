"""What will bite: checks of the database, and of what waits in it."""

from relay.operations.doctor.examination import examine
from relay.operations.doctor.finding import Finding

__all__ = ["Finding", "examine"]
