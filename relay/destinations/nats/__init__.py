"""A destination on NATS JetStream: a publish for each message, acknowledged by the stream that stored it."""
