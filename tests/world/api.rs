//! Third-party APIs: `tidegate mock`'s own machinery in the test's process.

use std::net::SocketAddr;

use tidegate::mock::{ApiConfig, Handle, MockApi, Recorded};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A running mock API; ends when dropped.
pub struct Api {
    handle: Handle,
    stop: CancellationToken,
    _task: JoinHandle<()>,
}

impl Api {
    /// One that answers 200 `{}` to everything.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// One that behaves as `adapt` says.
    pub async fn with(adapt: impl FnOnce(&mut ApiConfig)) -> Self {
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let mut config = ApiConfig::new(any);
        adapt(&mut config);
        let api = MockApi::bind("api", config).await.expect("a free port on loopback");
        let (handle, stop) = (api.handle(), CancellationToken::new());
        let task = tokio::spawn(api.run(stop.clone()));
        Self { handle, stop, _task: task }
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        self.handle.url()
    }

    /// Answers 503 to everything, or is well again.
    pub fn set_down(&self, down: bool) {
        self.handle.set_down(down);
    }

    /// What it got; the last 10,000.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.handle.requests()
    }

    /// How many requests it got.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.handle.tally().requests
    }

    /// How many different idempotency keys it accepted, and how many 2xx beyond the first of each.
    #[must_use]
    pub fn accepted(&self) -> (u64, u64) {
        let tally = self.handle.tally();
        (tally.accepted, tally.accepted_again)
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
