//! `tidegate deliveries replay|discard`: those named, or what filters find after asking.
//!
//! ```text
//! ids      ─► each by itself, all of them tried
//! filters  ─► dry run, told by route ─► asked, unless --yes ─► done, told by route
//!                     └─ --dry-run stops there
//! ```

use std::{
    collections::BTreeMap,
    io::{BufRead, IsTerminal as _, Write as _},
    time::Duration,
};

use clap::Args;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, interval_at};

use super::{
    Failure,
    client::{Admin, path_part},
    list::{Filters, deliveries_table},
    serve::complain,
    table::{Table, clean, print},
    usage,
};

/// How often a person at a terminal hears that it goes on.
const PROGRESS: Duration = Duration::from_secs(5);

/// Which deliveries.
#[derive(Debug, Args)]
pub(super) struct ActArgs {
    /// Deliveries, as the list shows them; or filters
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    filters: Filters,
    /// All that there are, where no filter is given
    #[arg(long)]
    all: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Tell what it would be done to, and stop there
    #[arg(long)]
    dry_run: bool,
}

/// What is done to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Replay,
    Discard,
}

impl Act {
    fn verb(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Discard => "discard",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Self::Replay => "replayed",
            Self::Discard => "discarded",
        }
    }
}

/// Does it.
pub(super) async fn act(
    admin: &Admin,
    act: Act,
    arguments: &ActArgs,
    json: bool,
) -> Result<(), Failure> {
    check(act, arguments)?;
    if !arguments.ids.is_empty() {
        return named(admin, act, &arguments.ids, arguments.dry_run, json).await;
    }
    let asks = !arguments.yes && !arguments.dry_run;
    if asks && !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Err(Failure::Usage(format!(
            "{}: no terminal to ask on; --yes goes ahead without, --dry-run only tells",
            act.verb()
        )));
    }
    let filter = filter(act, &arguments.filters);
    let limit = arguments.filters.limit;
    let would = Bulk { admin, act, filter: &filter, limit, dry: true }.run(None).await?;
    if arguments.dry_run {
        return Ok(print(&told(&would, "matched", json))?);
    }
    let total = would.values().sum();
    complain(&preview(act, &filter, &would));
    if total > 0 && asks && !agreed(act, total, &mut std::io::stdin().lock())? {
        return Err(Failure::Failed("nothing was done".to_owned()));
    }
    let did = match total {
        0 => BTreeMap::new(),
        _ => Bulk { admin, act, filter: &filter, limit, dry: false }.run(Some(total)).await?,
    };
    Ok(print(&told(&did, act.done(), json))?)
}

/// What clap cannot tell by itself.
fn check(act: Act, arguments: &ActArgs) -> Result<(), Failure> {
    let ActArgs { ids, filters, all, .. } = arguments;
    let filtered = !filters.given().is_empty();
    let problem = match (ids.is_empty(), filtered, all) {
        (true, false, false) => format!(
            "which ones? Name them, or filter (--route, --upstream, …), or say --all to {} all",
            act.verb()
        ),
        (false, true, _) | (false, _, true) => {
            "IDs stand alone: neither filters nor --all beside them".to_owned()
        }
        (false, false, false) if filters.limit.is_some() => {
            "IDs stand alone: no --limit beside them".to_owned()
        }
        (true, true, true) => "--all is for no filters".to_owned(),
        _ => return Ok(()),
    };
    Err(Failure::Usage(usage(&problem)))
}

/// The filter as the gateway takes it. Without a state the dead ones are replayed: calling a third
/// party again with what it has taken must be asked for.
fn filter(act: Act, filters: &Filters) -> Map<String, Value> {
    let given = filters.given().into_iter();
    let mut filter: Map<String, Value> =
        given.map(|(name, value)| (name.to_owned(), value.into())).collect();
    if act == Act::Replay && filters.state.is_none() {
        filter.insert("state".to_owned(), "dead".into());
    }
    filter
}

/// One by one; what fails is told, and the next is tried.
async fn named(
    admin: &Admin,
    act: Act,
    ids: &[String],
    dry: bool,
    json: bool,
) -> Result<(), Failure> {
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for id in ids {
        let path = format!("/api/v1/deliveries/{}", path_part(id));
        let answer = match dry {
            true => admin.get(&path).await,
            false => admin.post(&format!("{path}/{}", act.verb()), None).await,
        };
        match answer {
            Ok(delivery) => done.push(delivery),
            Err(problem) => {
                complain(&format!("{}: {problem}", clean(id)));
                failed.push(json!({ "id": id, "problem": problem }));
            }
        }
    }
    let what = if dry { "matched" } else { act.done() };
    let failures = failed.len();
    let answer = json!({ what: done.len(), "deliveries": done, "problems": failed });
    if json {
        print(&format!("{answer}\n"))?;
    } else if !done.is_empty() {
        print(&deliveries_table(&answer))?;
    }
    match failures {
        0 => Ok(()),
        _ => Err(Failure::Failed(format!("{failures} of {} not {}", ids.len(), act.done()))),
    }
}

/// One pass over all that a filter finds, in as many requests as it takes.
struct Bulk<'a> {
    admin: &'a Admin,
    act: Act,
    filter: &'a Map<String, Value>,
    limit: Option<u32>,
    dry: bool,
}

impl Bulk<'_> {
    /// How many, by route. `of` is how many there will be, for a person who waits.
    async fn run(&self, of: Option<u64>) -> Result<BTreeMap<String, u64>, String> {
        let path = format!("/api/v1/deliveries/{}", self.act.verb());
        let mut routes = BTreeMap::new();
        let mut cursor = Value::Null;
        loop {
            let so_far: u64 = routes.values().sum();
            let mut filter = self.filter.clone();
            if let Some(limit) = self.limit {
                let left = u64::from(limit).saturating_sub(so_far);
                if left == 0 {
                    return Ok(routes);
                }
                filter.insert("limit".to_owned(), left.into());
            }
            let body = json!({ "filter": filter, "dry_run": self.dry, "cursor": cursor });
            let answer = self.waiting(self.admin.post(&path, Some(&body)), so_far, of).await;
            let answer = answer.map_err(|problem| self.so_far(&problem, so_far))?;
            for (route, count) in answer["routes"].as_object().into_iter().flatten() {
                *routes.entry(route.clone()).or_default() += count.as_u64().unwrap_or_default();
            }
            cursor = answer["next"].clone();
            if cursor.is_null() {
                return Ok(routes);
            }
        }
    }

    /// The answer; until it is there, a person at a terminal hears that it goes on.
    async fn waiting(
        &self,
        answer: impl Future<Output = Result<Value, String>>,
        so_far: u64,
        of: Option<u64>,
    ) -> Result<Value, String> {
        let began = Instant::now();
        let mut ticks = interval_at(began + PROGRESS, PROGRESS);
        let at_terminal = std::io::stderr().is_terminal();
        tokio::pin!(answer);
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                _ = ticks.tick(), if at_terminal => {
                    let doing = if self.dry { "counting" } else { self.act.verb() };
                    let of = of.map_or(String::new(), |of| format!(" of {of}"));
                    let waited = began.elapsed().as_secs();
                    complain(&format!("{doing}: {so_far}{of} so far; {waited} s on the next"));
                }
            }
        }
    }

    /// What broke off after something was done says so.
    fn so_far(&self, problem: &str, so_far: u64) -> String {
        match (self.dry, so_far) {
            (true, _) | (_, 0) => problem.to_owned(),
            (false, so_far) => format!("{problem}; {so_far} were {} before", self.act.done()),
        }
    }
}

/// What it would be done to.
fn preview(act: Act, filter: &Map<String, Value>, would: &BTreeMap<String, u64>) -> String {
    let state = filter.get("state").and_then(Value::as_str);
    let state = state.map_or(String::new(), |state| format!("{state} "));
    let total: u64 = would.values().sum();
    match total {
        0 => format!("no {state}deliveries to {}", act.verb()),
        total => {
            format!("to {}: {total} {state}deliveries\n{}", act.verb(), by_route(would))
        }
    }
}

fn told(routes: &BTreeMap<String, u64>, what: &str, json: bool) -> String {
    let total: u64 = routes.values().sum();
    match json {
        true => format!("{}\n", json!({ what: total, "routes": routes })),
        false if routes.is_empty() => format!("{what}: 0\n"),
        false => format!("{what}: {total}\n{}", by_route(routes)),
    }
}

fn by_route(routes: &BTreeMap<String, u64>) -> String {
    let mut table = Table::new(&["ROUTE", "DELIVERIES"]);
    for (route, count) in routes {
        table.row([clean(route), count.to_string()]);
    }
    table.render()
}

/// Whether whoever is at `input` says yes.
fn agreed(act: Act, total: u64, input: &mut impl BufRead) -> Result<bool, String> {
    let mut stderr = std::io::stderr();
    // With stderr gone nobody reads the question, and the answer is no.
    let _ = write!(stderr, "{} {total} deliveries? [y/N] ", act.verb());
    let _ = stderr.flush();
    let mut answer = String::new();
    input.read_line(&mut answer).map_err(|error| format!("standard input: {error}"))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        act: ActArgs,
    }

    fn arguments(line: &str) -> ActArgs {
        Line::try_parse_from(["x"].into_iter().chain(line.split_whitespace())).unwrap().act
    }

    #[test]
    fn which_ones_must_be_said_one_way_and_one_only() {
        for (line, fine) in [
            ("1 2 3", true),
            ("--route a", true),
            ("--route a --limit 5", true),
            ("--all", true),
            ("--all --limit 5", true),
            ("", false),
            ("--yes", false),
            ("--dry-run", false),
            ("--limit 5", false),
            ("1 --route a", false),
            ("1 --all", false),
            ("1 --limit 5", false),
            ("--all --route a", false),
        ] {
            let checked = check(Act::Replay, &arguments(line));
            assert_eq!(checked.is_ok(), fine, "{line}");
            assert!(!matches!(checked, Err(Failure::Failed(_) | Failure::Config(_))), "{line}");
        }
    }

    #[test]
    fn what_was_delivered_is_replayed_only_when_asked_for() {
        let filters = |line: &str| arguments(line).filters;
        let of = |act, line: &str| Value::Object(filter(act, &filters(line)));
        assert_eq!(of(Act::Replay, "--route a"), json!({ "route": "a", "state": "dead" }));
        assert_eq!(of(Act::Replay, "--all"), json!({ "state": "dead" }));
        assert_eq!(of(Act::Replay, "--state delivered"), json!({ "state": "delivered" }));
        assert_eq!(of(Act::Discard, "--key k"), json!({ "key": "k" }));
        assert_eq!(of(Act::Discard, "--all"), json!({}));
    }

    #[test]
    fn only_a_plain_yes_is_one() {
        for (answer, yes) in
            [("y\n", true), ("YES\n", true), ("\n", false), ("", false), ("yo", false)]
        {
            assert_eq!(agreed(Act::Discard, 3, &mut answer.as_bytes()), Ok(yes), "{answer:?}");
        }
    }

    #[test]
    fn what_is_told_adds_up() {
        let routes = BTreeMap::from([("a".to_owned(), 2), ("bc".to_owned(), 10)]);
        let expected = "replayed: 12\nROUTE  DELIVERIES\na      2\nbc     10\n";
        assert_eq!(told(&routes, "replayed", false), expected);
        let json: Value = serde_json::from_str(&told(&routes, "matched", true)).unwrap();
        assert_eq!(json, json!({ "matched": 12, "routes": { "a": 2, "bc": 10 } }));
        let filter = Map::from_iter([("state".to_owned(), "dead".into())]);
        assert!(preview(Act::Replay, &filter, &routes).starts_with("to replay: 12 dead"));
        let none = BTreeMap::new();
        assert_eq!(preview(Act::Replay, &filter, &none), "no dead deliveries to replay");
    }
}
