//! The middle of Tidegate: what is between the ends, and the process around it.
//!
//! ```text
//! source ─► Intake.accept ─► queue ─► due → prepare → admit → call → settle ─► target
//!           (durable = yes)           (one loop, both directions)
//! ```

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod demo;
pub mod descriptors;
pub mod mock;
pub mod protect;
pub mod queue;
pub mod rehearsal;
pub mod shutdown;
pub mod telemetry;
