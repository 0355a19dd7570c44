//! `tidegate`: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser as _;
use tidegate::cli::{self, Cli};

/// Small objects made on one thread and freed on another are what an event is made of; glibc's
/// allocator takes a tenth of its cost for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("the system gives a process its threads and timers");
    runtime.block_on(cli::run(cli))
}
