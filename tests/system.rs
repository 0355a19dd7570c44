//! The system tests: one binary, the whole gateway, real parts.

#![allow(missing_docs, reason = "tests say what they test in their names")]

mod broker_faults;
mod command_line;
mod events_to_apis;
mod products;
mod protections;
mod rabbitmq_consumer;
mod tidy;
