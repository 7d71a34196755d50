"""The owning thread: the session loop and what it does in a turn. It knows the event loop only through `relay.seam`."""
