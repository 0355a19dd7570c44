//! The command line.
//!
//! Exit codes: 0 ok, 1 failed, 2 usage, 78 configuration invalid. What was asked for goes to
//! stdout, everything else to stderr.

mod act;
mod client;
mod emit;
mod list;
mod reload;
mod serve;
mod show;
mod switch;
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
    /// Run the gateway; it reloads when its files change, on SIGHUP, and on `tidegate reload`
    Run {
        #[command(flatten)]
        config: ConfigArgs,
        /// Do not reload when files change, only when asked to
        #[arg(long)]
        no_watch: bool,
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
        verb: Option<RoutesVerb>,
        #[command(flatten)]
        shown: Shown,
    },
    /// Upstreams of a running gateway
    Upstreams {
        #[command(subcommand)]
        verb: Option<UpstreamsVerb>,
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
    /// Have a running gateway read its configuration again; a bad one changes nothing
    Reload {
        #[command(flatten)]
        shown: Shown,
    },
    /// Exit 0 when a running gateway is ready: for containers without a shell
    Healthcheck {
        #[command(flatten)]
        shown: Shown,
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

#[derive(Debug, Subcommand)]
enum RoutesVerb {
    /// List them
    List,
    /// Stop the attempts of one; intake goes on
    Pause {
        /// The route; of its replies `ROUTE/reply`
        name: String,
    },
    /// Go on with one that is paused
    Resume {
        /// The route; of its replies `ROUTE/reply`
        name: String,
    },
}

#[derive(Debug, Subcommand)]
enum UpstreamsVerb {
    /// List them
    List,
    /// Stop the calls of one: they wait in the queue
    Pause {
        /// The upstream
        name: String,
    },
    /// Go on with one that is paused
    Resume {
        /// The upstream
        name: String,
    },
    /// Close the breaker of one, and forget the quiet it asked for
    Reset {
        /// The upstream
        name: String,
    },
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
    /// Deliver again: those named, or the dead ones that filters find
    Replay(Box<act::ActArgs>),
    /// Give up: those named, or the pending and dead ones that filters find
    Discard(Box<act::ActArgs>),
}

/// Why a verb did not do it, and what it exits with.
#[derive(Debug)]
enum Failure {
    /// 1.
    Failed(String),
    /// 2.
    Usage(String),
    /// 78.
    Config(String),
}

impl From<String> for Failure {
    fn from(problem: String) -> Self {
        Self::Failed(problem)
    }
}

/// Does what `cli` says, and answers the exit code.
pub async fn run(cli: Cli) -> ExitCode {
    let done = match cli.verb {
        Verb::Run { config, no_watch } => return serve::run(&config.paths, !no_watch).await,
        Verb::Check { config, json } => return serve::check(&config.paths, json),
        Verb::Test(arguments) => return test::test(arguments).await,
        Verb::Demo { once } => serve::demo(once).await.map_err(Failure::Failed),
        Verb::Mock { path } => match crate::mock::config::load(&path) {
            Ok(config) => serve::mock(config).await.map_err(Failure::Failed),
            Err(problem) => Err(Failure::Config(problem)),
        },
        Verb::Deliveries { verb: Some(_), filters, .. } if filters.any() => {
            let what = "filters go behind the verb, or without one; `show` has none";
            Err(Failure::Usage(usage(what)))
        }
        verb => ask(verb).await,
    };
    let (problem, code) = match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Failed(problem)) => (problem, ExitCode::FAILURE),
        Err(Failure::Usage(problem)) => (problem, ExitCode::from(EXIT_USAGE)),
        Err(Failure::Config(problem)) => (problem, ExitCode::from(EXIT_CONFIG)),
    };
    serve::complain(problem.trim_end());
    code
}

/// The verbs that talk to a running gateway.
async fn ask(verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Emit(arguments) => Ok(emit::emit(*arguments).await?),
        Verb::Routes { verb, shown } => {
            let admin = Admin::new(&shown.admin)?;
            let (verb, name) = match verb {
                None | Some(RoutesVerb::List) => {
                    return Ok(list::routes(&admin, shown.json).await?);
                }
                Some(RoutesVerb::Pause { name }) => ("pause", name),
                Some(RoutesVerb::Resume { name }) => ("resume", name),
            };
            Ok(switch::route(&admin, verb, &name, shown.json).await?)
        }
        Verb::Upstreams { verb, shown } => {
            let admin = Admin::new(&shown.admin)?;
            let (verb, name) = match verb {
                None | Some(UpstreamsVerb::List) => {
                    return Ok(list::upstreams(&admin, shown.json).await?);
                }
                Some(UpstreamsVerb::Pause { name }) => ("pause", name),
                Some(UpstreamsVerb::Resume { name }) => ("resume", name),
                Some(UpstreamsVerb::Reset { name }) => ("reset", name),
            };
            Ok(switch::upstream(&admin, verb, &name, shown.json).await?)
        }
        Verb::Deliveries { verb, filters, shown } => deliveries(verb, &filters, &shown).await,
        Verb::Reload { shown } => reload::reload(&Admin::new(&shown.admin)?, shown.json).await,
        Verb::Healthcheck { shown } => healthcheck(&shown).await,
        Verb::Run { .. }
        | Verb::Check { .. }
        | Verb::Test { .. }
        | Verb::Demo { .. }
        | Verb::Mock { .. } => {
            unreachable!("`run` has taken these")
        }
    }
}

async fn deliveries(
    verb: Option<DeliveriesVerb>,
    filters: &list::Filters,
    shown: &Shown,
) -> Result<(), Failure> {
    let admin = Admin::new(&shown.admin)?;
    match verb {
        None => Ok(list::deliveries(&admin, filters, shown.json).await?),
        Some(DeliveriesVerb::List(filters)) => {
            Ok(list::deliveries(&admin, &filters, shown.json).await?)
        }
        Some(DeliveriesVerb::Show { id }) => Ok(show::delivery(&admin, &id, shown.json).await?),
        Some(DeliveriesVerb::Replay(arguments)) => {
            act::act(&admin, act::Act::Replay, &arguments, shown.json).await
        }
        Some(DeliveriesVerb::Discard(arguments)) => {
            act::act(&admin, act::Act::Discard, &arguments, shown.json).await
        }
    }
}

async fn healthcheck(shown: &Shown) -> Result<(), Failure> {
    let (status, body) = Admin::new(&shown.admin)?.look("/readyz").await?;
    let url = &shown.admin.url;
    if !body["ready"].is_boolean() {
        return Err(Failure::Failed(format!("{url}: what answers there is no Tidegate")));
    }
    if shown.json {
        table::print(&format!("{body}\n"))?;
    }
    match body["ready"] == true {
        true => Ok(()),
        false => Err(Failure::Failed(format!("{status}: not ready: {body}"))),
    }
}

/// What clap cannot tell by itself, said as clap says it.
fn usage(problem: &str) -> String {
    Cli::command().error(ErrorKind::ArgumentConflict, problem).render().to_string()
}

#[cfg(test)]
mod tests;
