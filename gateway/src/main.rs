//! `tidegate`: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser as _;
use tidegate::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("the system gives a process its threads and timers");
    runtime.block_on(cli::run(cli))
}
