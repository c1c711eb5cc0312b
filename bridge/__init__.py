"""The bridge: from a region's RabbitMQ queue to its RQ queue."""
