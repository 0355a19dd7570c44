//! Signals: to an orderly end, and to a reload.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancelled by the first SIGTERM or SIGINT; the second ends the process at once.
///
/// # Errors
/// When the system lets us install no handler.
pub fn on_signals() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        for already in [false, true] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if already {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "asked twice; what is unfinished is still pending, so nothing is lost"
                )]
                std::process::exit(1);
            }
            cancelled.cancel();
        }
    });
    Ok(token)
}

/// SIGHUP, which would end the process if nobody heard it: the configuration is to be read again.
///
/// # Errors
/// When the system lets us install no handler.
pub fn on_hangup() -> std::io::Result<Signal> {
    signal(SignalKind::hangup())
}
