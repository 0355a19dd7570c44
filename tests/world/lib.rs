//! The world around a gateway under test: the binary itself as a process, a private RabbitMQ node,
//! and third-party APIs that can be told how to behave.
//!
//! Everything listens on loopback and on ports of its own, ends with the test, and waits for what
//! it needs instead of sleeping.

pub mod amqp;
pub mod amqp_proxy;
pub mod api;
pub mod both;
pub mod clients;
pub mod collector;
pub mod fuzz;
pub mod gateway;
pub mod load;
pub mod power;
pub mod process;
pub mod product;
pub mod proxy;
pub mod queue_file;
pub mod rabbitmq;
pub mod raw_http;
pub mod strace;
pub mod wait;
pub mod wire;

pub use api::Api;
pub use both::Both;
pub use collector::Collector;
pub use gateway::Gateway;
pub use load::Load;
pub use product::Product;
pub use raw_http::{Act, RawHttp};
pub use strace::Strace;
pub use wait::eventually;
