//! Lists for people: aligned tables; and the same as JSON for programs.

use clap::{Args, builder::PossibleValuesParser};
use serde_json::Value;
use tidegate_adapters::DeadReason;

use super::{
    client::Admin,
    table::{Table, age, items, print, text},
};

/// A list has so many, unless asked for fewer or more; and a page of it at most.
const LIMIT: u32 = 50;
const PAGE: usize = 500;

const STATES: [&str; 5] = ["pending", "active", "delivered", "dead", "discarded"];

/// Filters of deliveries; all of them must hold.
#[derive(Debug, Default, Clone, PartialEq, Eq, Args)]
pub(super) struct Filters {
    /// Of this route
    #[arg(long)]
    route: Option<String>,
    /// Of routes that call this upstream
    #[arg(long)]
    upstream: Option<String>,
    /// In this state
    #[arg(long, value_parser = PossibleValuesParser::new(STATES))]
    pub(super) state: Option<String>,
    /// Dead for this reason
    #[arg(long, value_parser = PossibleValuesParser::new(DeadReason::ALL.map(DeadReason::as_str)))]
    reason: Option<String>,
    /// The event's type
    #[arg(long = "type")]
    kind: Option<String>,
    /// The event's id
    #[arg(long)]
    event: Option<String>,
    /// The order key
    #[arg(long)]
    key: Option<String>,
    /// Accepted at or after: 2026-01-31T12:00:00Z, or 1h ago
    #[arg(long)]
    since: Option<String>,
    /// Accepted before
    #[arg(long)]
    until: Option<String>,
    /// At most so many, the newest; a list shows 50 if not given
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: Option<u32>,
}

impl Filters {
    /// Whether any was given.
    pub(super) fn any(&self) -> bool {
        *self != Self::default()
    }

    /// Those given, by name; without the limit.
    pub(super) fn given(&self) -> Vec<(&'static str, &str)> {
        let filters = [
            ("route", &self.route),
            ("upstream", &self.upstream),
            ("state", &self.state),
            ("reason", &self.reason),
            ("type", &self.kind),
            ("event", &self.event),
            ("key", &self.key),
            ("since", &self.since),
            ("until", &self.until),
        ];
        let given = filters.into_iter();
        given.filter_map(|(name, value)| Some((name, value.as_deref()?))).collect()
    }

    fn query(&self, cursor: Option<&str>, limit: usize) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.given());
        query.extend_pairs(cursor.map(|cursor| ("cursor", cursor)));
        query.append_pair("limit", &limit.to_string());
        query.finish()
    }
}

/// `tidegate routes`.
pub(super) async fn routes(admin: &Admin, json: bool) -> Result<(), String> {
    let answer = admin.get("/api/v1/routes").await?;
    print(&if json { format!("{answer}\n") } else { routes_table(&answer) })
}

/// `tidegate upstreams`.
pub(super) async fn upstreams(admin: &Admin, json: bool) -> Result<(), String> {
    let answer = admin.get("/api/v1/upstreams").await?;
    print(&if json { format!("{answer}\n") } else { upstreams_table(&answer) })
}

/// `tidegate deliveries list`: follows cursors until it has as many as wanted, or the end.
pub(super) async fn deliveries(admin: &Admin, filters: &Filters, json: bool) -> Result<(), String> {
    let limit = filters.limit.unwrap_or(LIMIT) as usize;
    let mut found: Vec<Value> = Vec::new();
    let mut cursor: Option<String> = None;
    while found.len() < limit {
        let query = filters.query(cursor.as_deref(), (limit - found.len()).min(PAGE));
        let page = admin.get(&format!("/api/v1/deliveries?{query}")).await?;
        found.extend(items(&page["deliveries"]).cloned());
        cursor = page["next"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    let answer = serde_json::json!({ "deliveries": found, "next": cursor });
    print(&if json { format!("{answer}\n") } else { deliveries_table(&answer) })
}

pub(super) fn routes_table(answer: &Value) -> String {
    let mut table = Table::new(&[
        "ROUTE",
        "STATE",
        "SOURCE",
        "PENDING",
        "ACTIVE",
        "DELIVERED",
        "DEAD",
        "OLDEST DUE",
    ]);
    for route in items(&answer["routes"]) {
        let counts = &route["counts"];
        let source = if route["source_up"] == true { "up" } else { "down" };
        let oldest = route["oldest_due_seconds"].as_f64().map_or("-".to_owned(), age);
        table.row([
            text(&route["name"]),
            text(&route["state"]),
            source.to_owned(),
            text(&counts["pending"]),
            text(&counts["active"]),
            text(&counts["delivered"]),
            text(&counts["dead"]),
            oldest,
        ]);
    }
    table.render()
}

pub(super) fn upstreams_table(answer: &Value) -> String {
    let mut table = Table::new(&[
        "UPSTREAM",
        "STATE",
        "BREAKER",
        "IN FLIGHT",
        "LIMITS USED",
        "PAUSED UNTIL",
        "URL",
    ]);
    for upstream in items(&answer["upstreams"]) {
        let limits: Vec<String> = items(&upstream["limits"]).map(limit).collect();
        table.row([
            text(&upstream["name"]),
            (if upstream["paused"] == true { "paused" } else { "running" }).to_owned(),
            match &upstream["breaker"] {
                Value::Null => "off".to_owned(),
                breaker => text(&breaker["state"]),
            },
            format!("{}/{}", text(&upstream["in_flight"]), text(&upstream["concurrency"])),
            if limits.is_empty() { "-".to_owned() } else { limits.join(", ") },
            text(&upstream["paused_until"]),
            text(&upstream["url"]),
        ]);
    }
    table.render()
}

/// `25% of 100/1s`.
fn limit(limit: &Value) -> String {
    let used = limit["used"].as_f64().unwrap_or_default() * 100.0;
    let period = match limit["period_ms"].as_u64().unwrap_or_default() {
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    };
    format!("{used:.0}% of {}/{period}", text(&limit["limit"]))
}

pub(super) fn deliveries_table(answer: &Value) -> String {
    let mut table = Table::new(&[
        "ID", "EVENT", "ROUTE", "STATE", "REASON", "KEY", "ATTEMPTS", "ACCEPTED", "DUE",
    ]);
    for delivery in items(&answer["deliveries"]) {
        table.row([
            text(&delivery["id"]),
            text(&delivery["event_id"]),
            text(&delivery["route"]),
            text(&delivery["state"]),
            text(&delivery["reason"]),
            text(&delivery["key"]),
            text(&delivery["attempt_count"]),
            text(&delivery["accepted_at"]),
            text(&delivery["due_at"]),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn routes_are_a_table() {
        let answer = json!({ "routes": [
            { "name": "award-points", "state": "running", "source_up": true,
              "counts": { "pending": 1200, "active": 3, "delivered": 7, "dead": 0 },
              "oldest_due_seconds": 90.0 },
            { "name": "x", "state": "orphaned", "source_up": false,
              "counts": { "pending": 1, "active": 0, "delivered": 0, "dead": 0 },
              "oldest_due_seconds": null },
        ] });
        let expected = "\
ROUTE         STATE     SOURCE  PENDING  ACTIVE  DELIVERED  DEAD  OLDEST DUE
award-points  running   up      1200     3       7          0     2m
x             orphaned  down    1        0       0          0     -
";
        assert_eq!(routes_table(&answer), expected);
    }

    #[test]
    fn upstreams_are_a_table() {
        let answer = json!({ "upstreams": [
            { "name": "loyalty", "breaker": { "state": "half-open" }, "in_flight": 1,
              "concurrency": 64, "paused": false, "paused_until": "2026-01-31T12:00:00Z",
              "url": "https://l.example/",
              "limits": [{ "limit": 100, "period_ms": 1000, "used": 0.25 },
                         { "limit": 5, "period_ms": 90_000, "used": 1.0 }] },
            { "name": "mail", "breaker": null, "in_flight": 0, "concurrency": 8,
              "paused": true, "paused_until": null, "url": "https://m.example/", "limits": [] },
        ] });
        let table = upstreams_table(&answer);
        let rows: Vec<Vec<&str>> =
            table.lines().map(|line| line.split("  ").map(str::trim).collect()).collect();
        let cells = |row: usize| -> Vec<&str> {
            rows[row].iter().copied().filter(|cell| !cell.is_empty()).collect()
        };
        assert_eq!(
            cells(0),
            ["UPSTREAM", "STATE", "BREAKER", "IN FLIGHT", "LIMITS USED", "PAUSED UNTIL", "URL"]
        );
        let limits = "25% of 100/1s, 100% of 5/90s";
        let until = "2026-01-31T12:00:00Z";
        assert_eq!(
            cells(1),
            ["loyalty", "running", "half-open", "1/64", limits, until, "https://l.example/"]
        );
        assert_eq!(cells(2), ["mail", "paused", "off", "0/8", "-", "-", "https://m.example/"]);
    }

    #[test]
    fn deliveries_are_a_table_with_a_dash_for_nothing() {
        let answer = json!({ "deliveries": [{
            "id": "12", "event_id": null, "route": "r", "state": "dead", "reason": "invalid",
            "key": "k\u{1b}[2J", "attempt_count": 0, "accepted_at": "2026-01-31T12:00:00Z",
            "due_at": null,
        }] });
        let table = deliveries_table(&answer);
        let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            row,
            ["12", "-", "r", "dead", "invalid", "k?[2J", "0", "2026-01-31T12:00:00Z", "-"]
        );
    }

    #[test]
    fn filters_travel_percent_encoded() {
        let filters = Filters {
            key: Some("a&b=c d".to_owned()),
            since: Some("1h".to_owned()),
            ..Filters::default()
        };
        let query = filters.query(Some("41"), 7);
        assert_eq!(query, "key=a%26b%3Dc+d&since=1h&cursor=41&limit=7");
    }
}
