"""A destination on Kafka: it gets record batches, one per partition and turn."""
