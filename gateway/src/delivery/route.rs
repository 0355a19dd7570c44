//! A route's way out.

use std::sync::Arc;

use tidegate_adapters::{
    Delivery, Failure, Request,
    expression::{Input, Place, Template, Variables},
    http::caller::HttpTarget,
    rabbitmq::PublishTarget,
};

use super::reply::ReplyRule;
use crate::{
    config::RetryConfig,
    protect::{self, Upstream},
    telemetry::TargetTracer,
};

/// A route's way out: what turns its deliveries into calls, and where those go.
pub struct Route {
    /// Its name.
    pub name: Arc<str>,
    /// Renders calls.
    pub target: Target,
    /// Makes them: the leaf inside its protections.
    pub service: protect::Target,
    /// Admits them.
    pub upstream: Arc<Upstream>,
    /// Per limit of the upstream, what its key is; `None` where it has none.
    pub limit_keys: Vec<Option<Template>>,
    /// Which limits those are: [`Upstream::limits_epoch`].
    pub limits_epoch: u64,
    /// Backoff and when to give up.
    pub retry: RetryConfig,
    /// What it replies, if it does.
    pub reply: Option<ReplyRule>,
    /// Makes spans of its attempts.
    pub tracer: TargetTracer,
    /// Every route that calls the same upstream, this one included.
    pub peers: Arc<[Arc<str>]>,
}

/// What renders a route's calls: one variant per kind of target.
pub enum Target {
    /// Requests to a third-party API.
    Http(HttpTarget),
    /// Messages for an exchange of the broker.
    Rabbitmq(PublishTarget),
}

/// The values of the keyed limits of a call, in the order of the limits.
pub(super) type LimitKeys = Vec<Option<Arc<str>>>;

/// Renders the next call of `delivery`, and the keys of the upstream's limits. Pure: no network, no
/// token.
///
/// # Errors
/// When a template or an expression fails on its event; then nothing was attempted.
pub fn prepare(
    target: &Target,
    limit_keys: &[Option<Template>],
    delivery: &Arc<Delivery>,
) -> Result<(Request, LimitKeys), Failure> {
    let input = Input::event(Arc::clone(&delivery.event));
    let request = target.prepare(delivery, delivery.tries + 1, &input)?;
    let mut keys = LimitKeys::with_capacity(limit_keys.len());
    for template in limit_keys {
        let key = match template {
            None => None,
            Some(template) => template
                .render(&input, &Variables::default(), Place::OptionalField)
                .map_err(|failed| Failure::expression("rate_limit.key", &failed))?,
        };
        keys.push(key.map(Into::into));
    }
    Ok((request, keys))
}

impl Target {
    fn prepare(
        &self,
        delivery: &Arc<Delivery>,
        attempt: u32,
        input: &Input,
    ) -> Result<Request, Failure> {
        match self {
            Self::Http(target) => target
                .prepare(delivery, attempt, input)
                .map(|request| Request::Http(Arc::new(request))),
            Self::Rabbitmq(target) => {
                target.prepare(delivery, attempt, input).map(Request::Rabbitmq)
            }
        }
    }
}
