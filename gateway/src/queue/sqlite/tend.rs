//! Reminding the writer to look after pruning and a full disk, on a thread of its own.

use std::{thread::JoinHandle, time::Duration};

use tokio::sync::mpsc;

use super::command::Command;

/// How often the writer looks after pruning and a full disk when nothing else happens.
const TEND: Duration = Duration::from_millis(500);

/// Starts the thread; it ends with the queue.
///
/// # Errors
/// When the system gives no thread.
pub(super) fn start(commands: mpsc::WeakSender<Command>) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("queue-tend".to_owned()).spawn(move || {
        loop {
            std::thread::park_timeout(TEND);
            let Some(commands) = commands.upgrade() else { return };
            match commands.try_send(Command::Tend) {
                // A full channel means there is other work, which prunes as it appends.
                Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => {}
                Err(mpsc::error::TrySendError::Closed(_)) => return,
            }
        }
    })
}
