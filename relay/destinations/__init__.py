"""Where messages go: one folder per kind, found through `registry`; what they have in common is in `contract`."""
