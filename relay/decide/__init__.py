"""What to do, decided without doing it: pure functions over values, so that each rule can be tested by itself.

Nothing in here performs input or output, reads a clock, rolls dice or looks at settings: what a rule needs is handed
in.
"""
