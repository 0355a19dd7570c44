//! Waiting for something to become true.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep};

/// Asks `found` again and again until it gives something, and gives that.
///
/// # Panics
/// When `within` has passed: with `what`, so that the failure says what was waited for.
pub async fn eventually<T, F>(what: &str, within: Duration, mut found: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
