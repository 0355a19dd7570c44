//! The command line.
//!
//! Exit codes: 0 ok, 1 failed, 2 usage, 78 configuration invalid. What was asked for goes to
//! stdout, everything else to stderr.

mod client;
mod emit;
mod list;
mod serve;
mod show;
mod table;
mod test;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory as _, Parser, Subcommand, error::ErrorKind};

use client::Admin;

/// The words or options are wrong; clap's own, too.
const EXIT_USAGE: u8 = 2;

/// Configuration invalid: `EX_CONFIG` of sysexits(3).
const EXIT_CONFIG: u8 = 78;

/// The HTTP-to-event adapter gateway.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the gateway
    Run {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Load and validate the configuration, print every problem; connects to nothing
    Check {
        #[command(flatten)]
        config: ConfigArgs,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Play the configuration's tests: no network, no waiting, no environment
    Test(test::TestArgs),
    /// Plant-Based Pizza on the embedded broker with mock third parties, in one process
    Demo {
        /// Tell the story, verify it, exit
        #[arg(long)]
        once: bool,
    },
    /// Mock third-party APIs: scripted status, latency, rate limit, error ratio
    Mock {
        /// The YAML file that describes them
        #[arg(short = 'c', long = "config", value_name = "PATH")]
        path: PathBuf,
    },
    /// Publish one event through a running gateway; prints its id
    Emit(Box<emit::EmitArgs>),
    /// Routes of a running gateway
    Routes {
        #[command(subcommand)]
        verb: Option<ListVerb>,
        #[command(flatten)]
        shown: Shown,
    },
    /// Upstreams of a running gateway
    Upstreams {
        #[command(subcommand)]
        verb: Option<ListVerb>,
        #[command(flatten)]
        shown: Shown,
    },
    /// Deliveries of a running gateway, newest first
    Deliveries {
        #[command(subcommand)]
        verb: Option<DeliveriesVerb>,
        #[command(flatten)]
        filters: Box<list::Filters>,
        #[command(flatten)]
        shown: Shown,
    },
    /// Exit 0 when a running gateway is ready: for containers without a shell
    Healthcheck {
        #[command(flatten)]
        admin: AdminArgs,
    },
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// A file, or a folder whose *.yaml are merged; repeatable
    #[arg(
        short = 'c',
        long = "config",
        value_name = "PATH",
        env = "TIDEGATE_CONFIG",
        required = true
    )]
    paths: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct AdminArgs {
    /// The admin listener of the running gateway; its token comes from TIDEGATE_ADMIN_TOKEN
    #[arg(
        long = "admin",
        value_name = "URL",
        env = "TIDEGATE_ADMIN",
        default_value = "http://127.0.0.1:9090",
        global = true
    )]
    url: String,
}

#[derive(Debug, Args)]
struct Shown {
    #[command(flatten)]
    admin: AdminArgs,
    /// For programs
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum ListVerb {
    /// List them
    List,
}

#[derive(Debug, Subcommand)]
enum DeliveriesVerb {
    /// List them, newest first
    List(Box<list::Filters>),
    /// Show one, with its event and its attempts
    Show {
        /// As the list shows it
        id: String,
    },
}

/// Does what `cli` says, and answers the exit code.
pub async fn run(cli: Cli) -> ExitCode {
    let done = match cli.verb {
        Verb::Run { config } => return serve::run(&config.paths).await,
        Verb::Check { config, json } => return serve::check(&config.paths, json),
        Verb::Test(arguments) => return test::test(arguments).await,
        Verb::Demo { once } => serve::demo(once).await,
        Verb::Mock { path } => match crate::mock::config::load(&path) {
            Ok(config) => serve::mock(config).await,
            Err(problem) => {
                serve::complain(&problem);
                return ExitCode::from(EXIT_CONFIG);
            }
        },
        Verb::Deliveries { verb: Some(_), filters, .. } if filters.any() => {
            return usage("filters go behind `list`, or without a verb; `show` has none");
        }
        verb => ask(verb).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            serve::complain(&problem);
            ExitCode::FAILURE
        }
    }
}

/// The verbs that talk to a running gateway.
async fn ask(verb: Verb) -> Result<(), String> {
    match verb {
        Verb::Emit(arguments) => emit::emit(*arguments).await,
        Verb::Routes { verb: None | Some(ListVerb::List), shown } => {
            list::routes(&Admin::new(&shown.admin)?, shown.json).await
        }
        Verb::Upstreams { verb: None | Some(ListVerb::List), shown } => {
            list::upstreams(&Admin::new(&shown.admin)?, shown.json).await
        }
        Verb::Deliveries { verb: None, filters, shown }
        | Verb::Deliveries { verb: Some(DeliveriesVerb::List(filters)), shown, .. } => {
            list::deliveries(&Admin::new(&shown.admin)?, &filters, shown.json).await
        }
        Verb::Deliveries { verb: Some(DeliveriesVerb::Show { id }), shown, .. } => {
            show::delivery(&Admin::new(&shown.admin)?, &id, shown.json).await
        }
        Verb::Healthcheck { admin } => {
            let body = Admin::new(&admin)?.get("/readyz").await?;
            match body["ready"] == true {
                true => Ok(()),
                false => Err(format!("{}: what answers there is no Tidegate", admin.url)),
            }
        }
        Verb::Run { .. }
        | Verb::Check { .. }
        | Verb::Test { .. }
        | Verb::Demo { .. }
        | Verb::Mock { .. } => {
            unreachable!("`run` has taken these")
        }
    }
}

/// What clap cannot tell by itself, said as clap says it.
fn usage(problem: &str) -> ExitCode {
    let error = Cli::command().error(ErrorKind::ArgumentConflict, problem);
    // With stderr gone there is nobody left to tell.
    let _ = error.print();
    ExitCode::from(EXIT_USAGE)
}

#[cfg(test)]
mod tests;
