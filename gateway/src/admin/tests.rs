//! Every endpoint over real sockets, on a gateway that is made up.

mod access;
mod connections;
mod deliveries;
mod events;
mod health;
mod metrics;
mod routes;
mod world;
