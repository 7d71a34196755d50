"""What the integration guide fixed: the event, the path it is posted to, its listener, and what ids look like."""

COMPLETED = "extraction.completed"
PATH = "/extraction/internal/completed"
BASELINE_LISTENER = "listeners.baseline:on_extraction_completed"
CONTENT_ID = r"[A-Za-z0-9][A-Za-z0-9._:@~+=/-]*"


def id_by_content(content_id: str) -> str:
    """What an event that has no id is known by, whichever way it comes."""
    return f"content:{content_id}"
