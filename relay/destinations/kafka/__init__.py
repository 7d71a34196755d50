"""A destination on Kafka: record batches, one per partition and turn."""
