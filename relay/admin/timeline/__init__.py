"""Measurements over time: the backlog, and the samples that the dashboard plots."""
