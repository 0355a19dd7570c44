//! Every endpoint over real sockets, on a gateway that is made up.

mod access;
mod bulk;
mod connections;
mod control;
mod deliveries;
mod events;
mod health;
mod metrics;
mod openapi;
mod routes;
mod world;
