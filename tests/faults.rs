//! The fault suite: each case by its id, as `README.md` beside this file lists them.
//!
//! A test is named by its case, `b6_a_deleted_queue_…`; `table` holds the list to the tests and the
//! tests to the list. Cases that other tests already show are named there, wherever they stand.

mod broker;
mod configuration;
mod crash;
mod disk;
mod input;
mod lapin;
mod listeners;
mod process;
mod security;
mod table;
mod upstream;
