//! What only building shows: upstreams and targets are made once, and thrown away.
//!
//! `X::new(config)` has the last word on what works. Asking it here is what makes `check` and
//! `run` accept exactly the same files.

use std::{collections::BTreeMap, sync::Arc};

use tidegate_adapters::{
    Timestamp,
    http::{ConfigError, Hook, caller::Api, target::HttpTarget},
    otlp::Collector,
    rabbitmq::PublishTarget,
    secret::Mask,
};

use crate::config::{
    Config, RouteConfig, Source, Target,
    report::Problem,
    walk::{Places, place_of},
};

/// Builds everything that can be built without a connection.
pub(crate) fn check(config: &Config, places: &Places) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut tell = |path: String, ConfigError { key, problem }: ConfigError| {
        let path = format!("{path}.{key}");
        problems.push(Problem::new(&place_of(places, &path), path, problem));
    };
    // No attempt is made, so nobody asks what time it is.
    let now = || Timestamp(0);
    let mut apis = BTreeMap::new();
    for (name, upstream) in &config.upstreams {
        let concurrency = usize::try_from(upstream.concurrency.get()).unwrap_or(usize::MAX);
        match Api::new(&upstream.api, concurrency, config.mask.clone(), now) {
            Ok(api) => _ = apis.insert(Arc::clone(name), Arc::new(api)),
            Err(error) => tell(format!("upstreams.{name}"), error),
        }
    }
    if let Some(telemetry) = &config.settings.telemetry
        && let Err(problem) = Collector::new(&telemetry.otlp)
    {
        tell("telemetry".to_owned(), ConfigError { key: "otlp".to_owned(), problem });
    }
    for (name, route) in &config.routes {
        if let Err((end, error)) = ends(name, route, &apis, &config.mask) {
            // The route of a reply is written under the route that replies.
            let end = if let Source::Reply(_) = route.from { "reply" } else { end };
            let name = name.trim_end_matches("/reply");
            tell(format!("routes.{name}.{end}"), error);
        }
    }
    problems
}

/// Both ends of a route, each with the key it is written under.
fn ends(
    name: &Arc<str>,
    route: &RouteConfig,
    apis: &BTreeMap<Arc<str>, Arc<Api>>,
    mask: &Mask,
) -> Result<(), (&'static str, ConfigError)> {
    if let Source::Webhook(webhook) = &route.from {
        Hook::new(Arc::clone(name), webhook).map_err(|error| ("from.webhook", error))?;
    }
    match &route.to {
        Target::Http(http) => {
            // Without its upstream, which has a problem of its own, there is nothing to ask.
            if let Some(api) = apis.get(&*http.upstream) {
                HttpTarget::new(http, Arc::clone(api), route.retry.retry_after_max)
                    .map_err(|error| ("to.http", error))?;
            }
        }
        Target::Rabbitmq(target) => {
            PublishTarget::new(target, mask.clone()).map_err(|problem| {
                ("to.rabbitmq", ConfigError { key: "exchange".to_owned(), problem })
            })?;
        }
    }
    Ok(())
}
