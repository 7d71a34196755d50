"""A destination on RabbitMQ: a confirmed publish for each message."""
