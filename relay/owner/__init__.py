"""The owning thread: the session loop and its parts. It reaches the event loop only through `relay.seam`."""
