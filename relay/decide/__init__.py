"""The rules are pure functions over values, so each rule can be tested by itself.

No module here does input or output, or reads a clock, a random number or a setting: a rule gets what it needs as
arguments.
"""
