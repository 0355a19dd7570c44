//! The verbs that run something themselves: run, check, demo, mock.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use tokio_util::sync::CancellationToken;

use super::EXIT_CONFIG;
use crate::{
    app::App,
    config::{self, Environment, RouteConfig, Source},
    demo, descriptors,
    mock::{MockApi, MockConfig},
    shutdown, telemetry,
};

/// `tidegate run`.
pub(super) async fn run(paths: &[PathBuf]) -> ExitCode {
    // First of all: a signal that comes while we start is a request to stop, too.
    let stop = match shutdown::on_signals() {
        Ok(stop) => stop,
        Err(error) => {
            complain(&format!("cannot handle signals: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let loaded = match config::load(paths, &Environment::of_process()) {
        Ok(loaded) => loaded,
        Err(report) => {
            complain(report.to_string().trim_end());
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let mask = loaded.config.mask.clone();
    let log = telemetry::init_log(&loaded.config.settings.log, mask.clone());
    let logging = CancellationToken::new();
    let damping = tokio::spawn(log.run(logging.clone()));
    let webhooks = |route: &RouteConfig| matches!(route.from, Source::Webhook(_));
    if loaded.config.routes.values().any(webhooks) {
        descriptors::raise(loaded.config.settings.server.max_connections.get());
    }
    for warning in &loaded.warnings {
        tracing::warn!(place = %warning.place, key = %warning.key, "{}", warning.message);
    }
    let ended = match App::new(loaded.config).await {
        Ok(app) => app.run(stop).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    logging.cancel();
    // It only tells what was left out.
    let _ = damping.await;
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            complain(&mask.apply(&problem));
            ExitCode::FAILURE
        }
    }
}

/// `tidegate check`.
pub(super) fn check(paths: &[PathBuf], json: bool) -> ExitCode {
    let loaded = config::load(paths, &Environment::of_process());
    let (text, code) = match (&loaded, json) {
        (Ok(loaded), false) => {
            let mut text = String::new();
            for warning in &loaded.warnings {
                text.push_str(&format!("warning: {warning}\n"));
            }
            let config = &loaded.config;
            let written = |route: &&RouteConfig| !matches!(route.from, Source::Reply(_));
            let routes = config.routes.values().filter(written).count();
            let upstreams = config.upstreams.len();
            text.push_str(&format!("valid: {routes} routes, {upstreams} upstreams\n"));
            (text, ExitCode::SUCCESS)
        }
        (Ok(loaded), true) => {
            let warnings: Vec<_> = loaded.warnings.iter().map(config::Problem::to_json).collect();
            let body = serde_json::json!({ "valid": true, "problems": [], "warnings": warnings });
            (format!("{body}\n"), ExitCode::SUCCESS)
        }
        (Err(report), true) => (format!("{}\n", report.to_json()), ExitCode::from(EXIT_CONFIG)),
        (Err(report), false) => {
            complain(report.to_string().trim_end());
            (String::new(), ExitCode::from(EXIT_CONFIG))
        }
    };
    match super::table::print(&text) {
        Ok(()) => code,
        Err(problem) => {
            complain(&problem);
            ExitCode::FAILURE
        }
    }
}

/// `tidegate demo`.
pub(super) async fn demo(once: bool) -> Result<(), String> {
    let stop = shutdown::on_signals().map_err(|error| error.to_string())?;
    demo::run(once, stop).await
}

/// `tidegate mock`.
pub(super) async fn mock(config: MockConfig) -> Result<(), String> {
    let stop = shutdown::on_signals().map_err(|error| error.to_string())?;
    let mut apis = tokio::task::JoinSet::new();
    for (name, config) in config.apis {
        let listen = config.listen;
        let api = MockApi::bind(&name, config)
            .await
            .map_err(|error| format!("apis.{name}.listen {listen}: {error}"))?;
        super::table::print(&format!("{name}  {}\n", api.handle().url()))?;
        apis.spawn(api.run(stop.clone()));
    }
    while apis.join_next().await.is_some() {}
    Ok(())
}

/// To stderr. With stderr gone there is nobody left to tell.
pub(super) fn complain(problem: &str) {
    let _ = writeln!(std::io::stderr(), "{problem}");
}
