//! The verbs that run something themselves: run, check, demo, mock.

use std::{io::Write as _, path::PathBuf, process::ExitCode, sync::Arc};

use tidegate_adapters::secret::Mask;
use tokio_util::sync::CancellationToken;

use super::EXIT_CONFIG;
use crate::{
    app::{App, ConfigSource},
    config::{self, Environment, RouteConfig, Source},
    demo,
    mock::{MockApi, MockConfig},
    shutdown, telemetry,
};

/// `tidegate run`; `watched` is whether a change of its files is a reload.
pub(super) async fn run(paths: &[PathBuf], watched: bool) -> ExitCode {
    // First of all: a signal that comes while we start is a request to stop, too.
    let signals = shutdown::on_signals().and_then(|stop| Ok((stop, shutdown::on_hangup()?)));
    let (stop, mut hangup) = match signals {
        Ok(signals) => signals,
        Err(error) => {
            complain(&format!("cannot handle signals: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let source = Arc::new(ConfigSource::new(paths.to_vec(), Environment::of_process(), watched));
    let loaded = match source.load(&Mask::default()) {
        Ok(loaded) => loaded,
        Err(report) => {
            complain(report.to_string().trim_end());
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let mask = loaded.config.mask.clone();
    let log = telemetry::init_log(&loaded.config.settings.log, mask.clone());
    let logging = CancellationToken::new();
    let damping = tokio::spawn(log.clone().run(logging.clone()));
    for warning in &loaded.warnings {
        tracing::warn!(place = %warning.place, key = %warning.key, "{}", warning.message);
    }
    let ended = match App::new(loaded.config).await {
        Ok(app) => {
            let inspect = app.inspect();
            let running = app.reloading(source).logging(log).run(stop);
            let hangups = async {
                while hangup.recv().await.is_some() {
                    // What comes of it is logged where it is done.
                    let _ = inspect.reload().await;
                }
                std::future::pending().await
            };
            tokio::select! {
                ended = running => ended.map_err(|error| error.to_string()),
                () = hangups => unreachable!("it waits for ever"),
            }
        }
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
