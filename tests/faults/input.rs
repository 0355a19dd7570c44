//! What others send that is no event, too large, or meant to harm.

mod amqp;
