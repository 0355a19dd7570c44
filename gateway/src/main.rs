//! `tidegate`: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser as _;
use tidegate::cli::{self, Cli};

/// What one thread takes another gives back, all day long: events come in on one, are written on a
/// second and sent from a third. The system's allocator has them wait for each other there.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("the system gives a process its threads and timers");
    runtime.block_on(cli::run(cli))
}
