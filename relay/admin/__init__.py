"""Operators' questions and actions, as functions of a connection; command line and dashboard only show the results."""
