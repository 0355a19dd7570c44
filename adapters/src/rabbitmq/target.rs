//! The RabbitMQ target: from a delivery to a message for an exchange. Pure: no network, no clock.

use std::sync::Arc;

use super::{Envelope, OnUnroutable, PublishRequest, PublisherConfig};
use crate::{
    DeadReason, Delivery, Exchange, Failure, Health, Verdict,
    expression::{ExpressionError, Input, Place, Rendering, Template},
    secret::Mask,
};

/// AMQP's short strings.
const SHORT_MAX: usize = 255;

/// Renders one route's messages.
#[derive(Debug)]
pub struct PublishTarget {
    exchange: Arc<str>,
    key: Template,
    headers: Vec<(String, Template)>,
    envelope: Envelope,
    on_unroutable: OnUnroutable,
    mask: Mask,
}

impl PublishTarget {
    /// The target of a route. What is kept of its messages is masked by `mask`.
    ///
    /// # Errors
    /// A name that AMQP cannot carry, in one sentence.
    pub fn new(config: &PublisherConfig, mask: Mask) -> Result<Self, String> {
        let names = std::iter::once(&config.exchange).chain(config.headers.keys());
        if let Some(name) = names.into_iter().find(|name| name.len() > SHORT_MAX) {
            return Err(format!("`{name}` is longer than 255 bytes, which is AMQP's limit"));
        }
        let headers = config.headers.iter().map(|(name, value)| (name.clone(), value.clone()));
        Ok(Self {
            exchange: config.exchange.as_str().into(),
            key: config.key.clone(),
            headers: headers.collect(),
            envelope: config.envelope,
            on_unroutable: config.on_unroutable,
            mask,
        })
    }

    /// Renders attempt number `attempt` (1 for the first) of `delivery`, whose event is `input`.
    ///
    /// # Errors
    /// When a template fails on this event, or AMQP cannot carry its id: dead `expression`, not an
    /// attempt.
    pub fn prepare(
        &self,
        delivery: &Arc<Delivery>,
        attempt: u32,
        input: &Input,
    ) -> Result<PublishRequest, Failure> {
        let rendering = Rendering::new(delivery, attempt, input);
        let render = |name: &str, template: &Template, place| {
            rendering.render(template, place).map_err(|failed| self.failed(name, &failed))
        };
        // A returned message is known by its id, so there must be room for it.
        if delivery.event.id.len() > SHORT_MAX {
            return Err(
                self.unsendable("the event's id is longer than 255 bytes: AMQP has no room")
            );
        }
        let key = render("key", &self.key, Place::RoutingKey)?.unwrap_or_default();
        let mut headers = Vec::with_capacity(self.headers.len());
        for (name, template) in &self.headers {
            if let Some(value) = render(&format!("headers.{name}"), template, Place::Header)? {
                headers.push((name.clone(), value));
            }
        }
        Ok(PublishRequest {
            exchange: Arc::clone(&self.exchange),
            key,
            headers,
            envelope: self.envelope,
            on_unroutable: self.on_unroutable,
            trace: None,
            mask: self.mask.clone(),
        })
    }

    fn failed(&self, key: &str, failed: &ExpressionError) -> Failure {
        self.unsendable(&format!("{key}: {failed}"))
    }

    fn unsendable(&self, detail: &str) -> Failure {
        Failure {
            result: None,
            verdict: Verdict::Dead(DeadReason::Expression),
            health: Health::Silent,
            throttle: None,
            detail: self.mask.apply(detail),
            exchange: Exchange::default(),
            response: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Data, DeliveryId, Event, Timestamp};

    fn target(key: &str, header: &str) -> PublishTarget {
        let config = serde_json::json!({
            "exchange": "loyalty", "key": key, "headers": { "x-order": header },
            "envelope": "metadata-data", "on_unroutable": "dead",
        });
        PublishTarget::new(&serde_json::from_value(config).unwrap(), Mask::default()).unwrap()
    }

    fn prepared(target: &PublishTarget, id: &str) -> Result<PublishRequest, Failure> {
        let event = Arc::new(Event {
            id: id.to_owned(),
            source: "/orders".to_owned(),
            kind: "order.confirmed".to_owned(),
            subject: None,
            time: None,
            datacontenttype: None,
            dataschema: None,
            extensions: std::collections::BTreeMap::new(),
            traceparent: None,
            hops: 0,
            data: Data::Json(r#"{"n": 7, "lines": "a\r\nb"}"#.into()),
        });
        let delivery = Delivery {
            id: DeliveryId(1),
            route: "r".into(),
            event: Arc::clone(&event),
            key: None,
            accepted_at: Timestamp(0),
            due_at: Timestamp(0),
            attempts: 0,
            tries: 0,
            first_attempt_at: None,
        };
        target.prepare(&Arc::new(delivery), 1, &Input::event(event))
    }

    #[test]
    fn key_and_headers_are_rendered_of_the_event() {
        let request = prepared(&target("{.type}.{.data.n}", "{.data.n}"), "e-1").unwrap();
        assert_eq!((&*request.exchange, &*request.key), ("loyalty", "order.confirmed.7"));
        assert_eq!(request.headers, [("x-order".to_owned(), "7".to_owned())]);
        let request = prepared(&target("k", "{.data.none}"), "e-1").unwrap();
        assert!(request.headers.is_empty(), "a lone null is left out");
    }

    #[test]
    fn b17_what_amqp_cannot_carry_is_dead_and_no_attempt() {
        let long = "k".repeat(300);
        let cases = [
            (target(&long, "x"), "e-1", "key"),
            (target("{.data.none}", "x"), "e-1", "key"),
            (target("k", "{.data.lines}"), "e-1", "headers.x-order"),
            (target("k", "x"), &*long, "id"),
        ];
        for (target, id, named) in cases {
            let failure = prepared(&target, id).unwrap_err();
            assert_eq!(failure.verdict, Verdict::Dead(DeadReason::Expression));
            assert_eq!(failure.result, None);
            assert!(failure.detail.contains(named), "{}", failure.detail);
        }
    }
}
