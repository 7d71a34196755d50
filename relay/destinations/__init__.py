"""The kinds of destinations: one folder each, found through `registry`; `contract` defines their common interface."""
