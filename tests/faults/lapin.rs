//! The traps of the AMQP client, shown against RabbitMQ, and that we do not fall in.
