//! Faults of RabbitMQ and of the way to it.
