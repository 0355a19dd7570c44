//! `tidegate`: arguments in, exit code out.

use std::{process::ExitCode, time::Duration};

use clap::Parser as _;
use tidegate::cli::{self, Cli};

/// For as long as any process lives.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // When the system has no thread to give, those that are there do what blocks. Without any,
        // a name looked up or a page read would be a panic.
        .thread_keep_alive(FOR_EVER)
        .build()
        .expect("the system gives a process its threads and timers");
    runtime.block_on(async {
        tokio::task::spawn_blocking(|| ()).await.expect("it does nothing, and so does not panic");
        cli::run(cli).await
    })
}
