"""What is sampled over time: the backlog, and the samples that the dashboard plots."""
