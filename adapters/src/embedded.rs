//! The in-process broker: topic exchanges on the gateway's own durable queue.
//!
//! For trying out, for tests, for one machine. A published event is matched against the bindings
//! of every route with RabbitMQ's own topic rules and offered to each match's [`Intake`]; "yes" to
//! the publisher means every one of them has said yes.

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;

use crate::{Event, Intake, Refused};

/// A topic broker in process. Clones are one broker.
#[derive(Clone, Default)]
pub struct Embedded {
    bindings: Arc<RwLock<HashMap<Arc<str>, Binding>>>,
}

/// What one route wants, and where it takes it.
struct Binding {
    #[allow(dead_code, reason = "filled in with the broker")]
    wants: Vec<crate::rabbitmq::BindConfig>,
    #[allow(dead_code, reason = "filled in with the broker")]
    intake: Arc<dyn Intake>,
}

impl Embedded {
    /// Binds `route`; from now on matching events go to `intake`.
    pub fn bind(&self, route: &str, wants: Vec<crate::rabbitmq::BindConfig>, intake: Arc<dyn Intake>) {
        self.bindings.write().insert(route.into(), Binding { wants, intake });
    }

    /// Publishes `event`; answers how many routes took it (0: nothing is bound for it).
    ///
    /// # Errors
    /// When a route refused it. Those that took it keep it: at least once.
    pub async fn publish(&self, exchange: &str, key: &str, event: &Event) -> Result<usize, Refused> {
        let _ = (exchange, key, event);
        todo!()
    }
}

/// Whether `pattern` (words by dots, `*` one word, `#` none or more) matches `key`, by RabbitMQ's rules
/// (<https://www.rabbitmq.com/tutorials/tutorial-five-python>). No recursion: a key of 127 words
/// against `#.#.#…` stays linear-ish in their product.
#[must_use]
pub fn topic_matches(pattern: &str, key: &str) -> bool {
    let _ = (pattern, key);
    todo!()
}
