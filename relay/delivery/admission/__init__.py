"""Whether an attempt may start now: the rate limit, the age of an entry, the health of the destination."""
