//! `tidegate`: arguments in, exit code out.

use std::{process::ExitCode, time::Duration};

use clap::Parser as _;
use tidegate::cli::{self, Cli};

/// What one thread takes another gives back, all day long: events come in on one, are written on a
/// second and sent from a third. The system's allocator has them wait for each other there.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
