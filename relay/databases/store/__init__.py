"""The interface between a relay and its database, and the parts of the relay's SQL that all databases have in common.

`contract` is the interface, and `rows` defines the form of the rows. The folder of each database implements the
interface.
"""
