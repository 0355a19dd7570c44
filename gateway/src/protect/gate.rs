//! The way from the leaf back to the limits; see [`Gate`].

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tidegate_adapters::Gate;
use tokio::time::Instant;

use super::{STALE_AFTER, Upstream, rate_limit::Keys};

/// The way from the leaf back to the limits; see [`Gate`].
pub(super) struct TokenGate {
    upstream: Arc<Upstream>,
    keys: Arc<Keys>,
    token: Mutex<TokenState>,
}

struct TokenState {
    taken_at: Instant,
    waited: Duration,
    waiting_since: Option<Instant>,
}

impl TokenGate {
    pub(super) fn new(upstream: Arc<Upstream>, keys: Arc<Keys>) -> Self {
        let token =
            TokenState { taken_at: Instant::now(), waited: Duration::ZERO, waiting_since: None };
        Self { upstream, keys, token: Mutex::new(token) }
    }

    async fn take(&self) {
        self.token.lock().waiting_since = Some(Instant::now());
        self.upstream.take_another_token(&self.keys).await;
        let now = Instant::now();
        let mut token = self.token.lock();
        let since = token.waiting_since.take().unwrap_or(now);
        token.waited += now - since;
        token.taken_at = now;
    }
}

impl Gate for TokenGate {
    fn pass(&self) -> BoxFuture<'_, ()> {
        let stale = self.token.lock().taken_at.elapsed() > STALE_AFTER;
        if self.upstream.limits.is_unlimited() || !stale {
            return Box::pin(std::future::ready(()));
        }
        Box::pin(self.take())
    }

    fn pass_again(&self) -> BoxFuture<'_, ()> {
        if self.upstream.limits.is_unlimited() {
            return Box::pin(std::future::ready(()));
        }
        Box::pin(self.take())
    }

    fn waited(&self) -> Duration {
        let token = self.token.lock();
        token.waited + token.waiting_since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl std::fmt::Debug for TokenGate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenGate").field("upstream", &self.upstream.name).finish_non_exhaustive()
    }
}
