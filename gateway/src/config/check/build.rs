//! What only building shows: upstreams and targets are made once, and thrown away.
//!
//! `X::new(config)` has the last word on what works. Asking it here is what makes `check` and
//! `run` accept exactly the same files.

use std::{collections::BTreeMap, sync::Arc};

use tidegate_adapters::{
    Timestamp,
    http::{ConfigError, caller::Api, target::HttpTarget},
};

use crate::config::{
    Config, Target,
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
    for (name, route) in &config.routes {
        let Target::Http(http) = &route.to else { continue };
        if let Some(api) = apis.get(&*http.upstream) {
            let built = HttpTarget::new(http, Arc::clone(api), route.retry.retry_after_max);
            if let Err(error) = built {
                tell(format!("routes.{name}.to.http"), error);
            }
        }
    }
    problems
}
