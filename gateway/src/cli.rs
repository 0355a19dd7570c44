//! The command line.
//!
//! Exit codes: 0 ok, 1 failed, 2 usage, 78 configuration invalid. What was asked for goes to
//! stdout, everything else to stderr.

mod client;
mod list;
mod serve;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use client::Admin;

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
    /// Publish one event through a running gateway
    Emit(EmitArgs),
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
    /// Deliveries of a running gateway
    Deliveries {
        #[command(subcommand)]
        verb: DeliveriesVerb,
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
    /// The admin listener of the running gateway
    #[arg(
        long = "admin",
        value_name = "URL",
        env = "TIDEGATE_ADMIN",
        default_value = "http://127.0.0.1:9090",
        global = true
    )]
    url: String,
    /// Its token; better set by the environment
    #[arg(long, env = "TIDEGATE_ADMIN_TOKEN", hide = true, hide_env_values = true, global = true)]
    token: Option<String>,
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
    List(list::Filters),
    /// Show one, with its event and its attempts
    Show {
        /// As the list shows it
        id: String,
    },
}

#[derive(Debug, Args)]
struct EmitArgs {
    /// The event's type: order.confirmed.v1
    #[arg(value_name = "TYPE")]
    kind: String,
    /// Its data: JSON, @FILE, or - for standard input
    #[arg(long, value_name = "JSON|@FILE|-")]
    data: Option<String>,
    /// The event source
    #[arg(long, default_value = "/tidegate/emit")]
    source: String,
    /// What within the source it is about
    #[arg(long)]
    subject: Option<String>,
    /// Its id; a fresh one if not given
    #[arg(long)]
    id: Option<String>,
    /// The exchange to publish to; the type's first word plus s if not given: order.… to orders
    #[arg(long)]
    exchange: Option<String>,
    /// The routing key; the type if not given
    #[arg(long)]
    key: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Does what `cli` says, and answers the exit code.
pub async fn run(cli: Cli) -> ExitCode {
    let done = match cli.verb {
        Verb::Run { config } => return serve::run(&config.paths).await,
        Verb::Check { config, json } => return serve::check(&config.paths, json),
        Verb::Demo { once } => serve::demo(once).await,
        Verb::Mock { path } => match crate::mock::config::load(&path) {
            Ok(config) => serve::mock(config).await,
            Err(problem) => {
                serve::complain(&problem);
                return ExitCode::from(EXIT_CONFIG);
            }
        },
        Verb::Emit(arguments) => emit(arguments).await,
        Verb::Routes { verb: None | Some(ListVerb::List), shown } => {
            list::routes(&Admin::new(&shown.admin), shown.json).await
        }
        Verb::Upstreams { verb: None | Some(ListVerb::List), shown } => {
            list::upstreams(&Admin::new(&shown.admin), shown.json).await
        }
        Verb::Deliveries { verb: DeliveriesVerb::List(filters), shown } => {
            list::deliveries(&Admin::new(&shown.admin), &filters, shown.json).await
        }
        Verb::Deliveries { verb: DeliveriesVerb::Show { id }, shown } => {
            list::delivery(&Admin::new(&shown.admin), &id, shown.json).await
        }
        Verb::Healthcheck { admin } => Admin::new(&admin).get("/readyz").await.map(drop),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            serve::complain(&problem);
            ExitCode::FAILURE
        }
    }
}

async fn emit(arguments: EmitArgs) -> Result<(), String> {
    let data = match arguments.data.as_deref() {
        None => None,
        Some(given) => Some(data(given)?),
    };
    let mut event = serde_json::json!({
        "specversion": "1.0",
        "id": arguments.id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
        "source": arguments.source,
        "type": arguments.kind,
    });
    if let Some(subject) = arguments.subject {
        event["subject"] = subject.into();
    }
    let mut body = event.to_string();
    if let Some(data) = data {
        // Spliced in as it was given: numbers keep their text.
        body.truncate(body.len() - 1);
        body.push_str(&format!(",\"datacontenttype\":\"application/json\",\"data\":{data}}}"));
    }
    let first_word = arguments.kind.split('.').next().unwrap_or_default();
    let exchange = arguments.exchange.unwrap_or_else(|| format!("{first_word}s"));
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("exchange", &exchange)
        .append_pair("key", arguments.key.as_deref().unwrap_or(&arguments.kind))
        .finish();
    let answer = Admin::new(&arguments.admin).post_event(&query, body).await?;
    list::print(&format!("{}\n", answer["id"].as_str().unwrap_or_default()))
}

/// JSON, from the argument, a file or standard input.
fn data(given: &str) -> Result<String, String> {
    let text = match given.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?,
        None if given == "-" => std::io::read_to_string(std::io::stdin())
            .map_err(|error| format!("standard input: {error}"))?,
        None => given.to_owned(),
    };
    tidegate_adapters::event::check_json(text.as_bytes())
        .map_err(|error| format!("--data: {error}"))?;
    Ok(text)
}
