"""The names that the integration guide fixes: the event, its path, its listener, and the form of ids."""

COMPLETED = "extraction.completed"
PATH = "/extraction/internal/completed"
BASELINE_LISTENER = "listeners.baseline:on_extraction_completed"
CONTENT_ID = r"[A-Za-z0-9][A-Za-z0-9._:@~+=/-]*"


def id_by_content(content_id: str) -> str:
    """Return the id of an event without an id, the same on every transport."""
    return f"content:{content_id}"
