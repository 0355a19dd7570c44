//! The system tests: one binary, the whole gateway, real parts.

#![allow(missing_docs, reason = "tests say what they test in their names")]

mod apis_to_events;
mod broker_faults;
mod broker_faults_publishing;
mod command_line;
mod config_tests;
mod control;
mod deploy;
mod events_to_apis;
mod faults;
mod fuzz_replay;
mod logs;
mod product_webhooks;
mod products;
mod protections;
mod rabbitmq_consumer;
mod rabbitmq_publisher;
mod reference_page;
mod reload;
mod replies;
mod soak;
mod stopping;
mod third_party_clients;
mod tidy;
mod traces;
mod webhook_protections;
