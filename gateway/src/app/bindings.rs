//! What we have bound in RabbitMQ, remembered across restarts: so that what is no longer wanted
//! can be unbound, and nobody else's bindings are.
//!
//! A binding is written down before it is made, and crossed out after it is taken away. A crash in
//! between leaves one too many on the list, which does no harm: it is made, or taken away, again.

use std::{collections::BTreeSet, sync::Arc};

use serde::{Deserialize, Serialize};
use tidegate_adapters::rabbitmq::Binding;
use tokio::sync::Mutex;

use crate::{
    config::{Broker, Config, Source},
    queue::{Queue, QueueError},
};

/// The name of the list in the queue file.
const NOTE: &str = "rabbitmq.bindings";

/// What we have bound.
pub(super) struct Bindings {
    queue: Arc<dyn Queue>,
    lists: Mutex<Lists>,
}

#[derive(Default)]
struct Lists {
    known: Known,
    wanted: BTreeSet<Binding>,
}

/// As it is written down.
#[derive(Default, Clone, PartialEq, Serialize, Deserialize)]
struct Known {
    /// Which RabbitMQ: what was bound in another is no business of this one.
    broker: String,
    bindings: BTreeSet<Binding>,
}

impl Bindings {
    /// Reads the list.
    ///
    /// # Errors
    /// When the queue cannot be read.
    pub(super) async fn load(queue: Arc<dyn Queue>, config: &Config) -> Result<Self, QueueError> {
        let note = match config.settings.broker {
            Broker::Rabbitmq(_) => queue.note(NOTE).await?,
            Broker::Embedded(_) => None,
        };
        let known = note.and_then(|note| serde_json::from_str(&note).ok()).unwrap_or_default();
        Ok(Self { queue, lists: Mutex::new(Lists { known, wanted: BTreeSet::new() }) })
    }

    /// Writes down what `config` binds; answers what is to be unbound.
    ///
    /// # Errors
    /// When it cannot be written down: then nothing may be bound.
    pub(super) async fn want(&self, config: &Config) -> Result<Vec<Binding>, QueueError> {
        let Broker::Rabbitmq(broker) = &config.settings.broker else { return Ok(Vec::new()) };
        let mut lists = self.lists.lock().await;
        let wanted = wanted(config);
        let mut known = lists.known.clone();
        let place = place(broker.url.expose());
        if known.broker != place {
            known = Known { broker: place, bindings: BTreeSet::new() };
        }
        known.bindings.extend(wanted.iter().cloned());
        if known != lists.known {
            self.queue.keep_note(NOTE, written(&known)).await?;
        }
        let unbind = known.bindings.difference(&wanted).cloned().collect();
        *lists = Lists { known, wanted };
        Ok(unbind)
    }

    /// These have been unbound.
    pub(super) async fn unbound(&self, bindings: Vec<Binding>) {
        let mut lists = self.lists.lock().await;
        let Lists { known, wanted } = &mut *lists;
        let before = known.bindings.len();
        known.bindings.retain(|known| wanted.contains(known) || !bindings.contains(known));
        if known.bindings.len() < before
            && let Err(error) = self.queue.keep_note(NOTE, written(known)).await
        {
            // It is unbound once more at the next start, which does nothing.
            tracing::warn!(%error, "cannot note what was unbound");
        }
    }
}

fn written(known: &Known) -> String {
    serde_json::to_string(known).expect("texts in a set are JSON")
}

/// What is declared for the routes of `config`.
fn wanted(config: &Config) -> BTreeSet<Binding> {
    let sources = config.routes.values().filter_map(|route| match &route.from {
        Source::Rabbitmq(source) if source.declare => Some(source),
        Source::Rabbitmq(_) | Source::Webhook(_) | Source::Reply(_) => None,
    });
    let bindings = sources.flat_map(|source| {
        let bind = source.bind.iter().cloned();
        bind.map(|to| Binding { queue: source.queue.clone(), to })
    });
    bindings.collect()
}

/// Which RabbitMQ, and which virtual host of it; without the user part.
fn place(url: &str) -> String {
    url.rsplit_once('@').map_or(url, |(_, place)| place).to_owned()
}
