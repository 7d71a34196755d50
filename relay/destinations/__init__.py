"""The kinds of destinations: one folder each, found through `registry`; `contract` holds their common interface."""
