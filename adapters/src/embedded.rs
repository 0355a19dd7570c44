//! The in-process broker: topic exchanges on the gateway's own durable queue.
//!
//! For trying out, for tests, for one machine. A published event is matched against the bindings
//! of every route with RabbitMQ's own topic rules and offered to each match's [`Intake`]; "yes" to
//! the publisher means every one of them has said yes.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::RwLock;

use crate::{Accepted, Arrival, Event, Intake, Refused, rabbitmq::BindConfig};

/// A topic broker in process. Clones are one broker.
#[derive(Clone, Default)]
pub struct Embedded {
    bindings: Arc<RwLock<BTreeMap<Arc<str>, Binding>>>,
}

/// What one route wants, and where it takes it.
struct Binding {
    wants: Vec<BindConfig>,
    intake: Arc<dyn Intake>,
}

impl Embedded {
    /// Binds `route`; from now on matching events go to `intake`.
    pub fn bind(&self, route: &str, wants: Vec<BindConfig>, intake: Arc<dyn Intake>) {
        intake.connected(true);
        self.bindings
            .write()
            .insert(route.into(), Binding { wants, intake });
    }

    /// Publishes `event`; answers how many routes it is for (0: nothing is bound for it). An event
    /// that matches several bindings of a route is offered to it once, as in RabbitMQ.
    ///
    /// # Errors
    /// When a route refused it. Those that took it keep it, and know it again when it is published
    /// once more: at least once.
    pub async fn publish(
        &self,
        exchange: &str,
        key: &str,
        event: &Event,
    ) -> Result<usize, Refused> {
        let intakes: Vec<Arc<dyn Intake>> = {
            let bindings = self.bindings.read();
            let matching = bindings
                .values()
                .filter(|binding| binding.matches(exchange, key));
            matching
                .map(|binding| Arc::clone(&binding.intake))
                .collect()
        };
        let offered = intakes.iter().map(|intake| {
            intake.accept(vec![Arrival {
                event: Ok(event.clone()),
                own_id: true,
            }])
        });
        let answers: Vec<Result<Vec<Accepted>, Refused>> =
            futures_util::future::join_all(offered).await;
        let taken = answers.len();
        answers.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(taken)
    }
}

impl Binding {
    fn matches(&self, exchange: &str, key: &str) -> bool {
        self.wants
            .iter()
            .any(|want| want.exchange == exchange && topic_matches(&want.key, key))
    }
}

/// Whether `pattern` (words by dots, `*` one word, `#` none or more) matches `key`, by RabbitMQ's
/// rules (<https://www.rabbitmq.com/tutorials/tutorial-five-python>).
///
/// No recursion: the time is the product of their lengths in words, whatever the pattern.
#[must_use]
pub fn topic_matches(pattern: &str, key: &str) -> bool {
    let words = words(key);
    // reached[n]: the pattern so far matches the first n words.
    let mut reached = vec![false; words.len() + 1];
    reached[0] = true;
    for part in self::words(pattern) {
        if part == "#" {
            let first = reached
                .iter()
                .position(|reached| *reached)
                .unwrap_or(reached.len());
            reached[first..].fill(true);
            continue;
        }
        for n in (0..words.len()).rev() {
            reached[n + 1] = reached[n] && (part == "*" || part == words[n]);
        }
        reached[0] = false;
    }
    reached[words.len()]
}

/// The words of a key. The empty key has none; an empty word between dots counts.
fn words(key: &str) -> Vec<&str> {
    if key.is_empty() {
        Vec::new()
    } else {
        key.split('.').collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn topics_match_as_in_rabbitmq() {
        let table = [
            ("*.orange.*", "quick.orange.rabbit", true),
            ("*.orange.*", "quick.orange.male.rabbit", false),
            ("*.*.rabbit", "lazy.orange.rabbit", true),
            ("lazy.#", "lazy.orange.male.rabbit", true),
            ("lazy.#", "lazy", true),
            ("#", "", true),
            ("#", "anything.at.all", true),
            ("*", "", false),
            ("*", "one", true),
            ("order.confirmed.#", "order.confirmed.v1", true),
            ("order.confirmed.#", "order.confirmedv1", false),
            ("#.v1", "v1", true),
            ("#.v1", "a.b.v1", true),
            ("a.#.b", "a.b", true),
            ("a.#.b", "a.x.y.b", true),
            ("a.*.b", "a..b", true),
            ("", "", true),
            ("", "a", false),
        ];
        for (pattern, key, matches) in table {
            assert_eq!(
                topic_matches(pattern, key),
                matches,
                "{pattern} against {key}"
            );
        }
    }

    #[test]
    fn many_hashes_take_no_time() {
        let pattern = ["#"; 100].join(".") + ".end";
        let key = ["word"; 100].join(".");
        assert!(!topic_matches(&pattern, &key));
    }

    fn reference(pattern: &[&str], words: &[&str]) -> bool {
        match pattern {
            [] => words.is_empty(),
            ["#", rest @ ..] => (0..=words.len()).any(|n| reference(rest, &words[n..])),
            [part, rest @ ..] => match words {
                [word, others @ ..] => (*part == "*" || part == word) && reference(rest, others),
                [] => false,
            },
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_plain_definition(
            pattern in prop::collection::vec(prop::sample::select(vec!["a", "b", "*", "#"]), 1..6),
            key in prop::collection::vec(prop::sample::select(vec!["a", "b"]), 1..6),
        ) {
            let expected = reference(&pattern, &key);
            prop_assert_eq!(topic_matches(&pattern.join("."), &key.join(".")), expected);
        }
    }
}
