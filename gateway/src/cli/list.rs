//! Lists for people: aligned tables; and the same as JSON for programs.

use std::io::Write as _;

use clap::Args;
use serde_json::Value;

use super::client::Admin;

/// Filters of `deliveries list`; all of them must hold.
#[derive(Debug, Default, Args)]
pub(super) struct Filters {
    /// Of this route
    #[arg(long)]
    route: Option<String>,
    /// Of routes that call this upstream
    #[arg(long)]
    upstream: Option<String>,
    /// pending, active, delivered, dead or discarded
    #[arg(long)]
    state: Option<String>,
    /// Why it is dead: rejected exhausted expired invalid expression unroutable
    #[arg(long)]
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
    /// At most so many
    #[arg(long, default_value_t = 50)]
    limit: usize,
}

impl Filters {
    fn query(&self, cursor: Option<&str>, limit: usize) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let filters = [
            ("route", self.route.as_deref()),
            ("upstream", self.upstream.as_deref()),
            ("state", self.state.as_deref()),
            ("reason", self.reason.as_deref()),
            ("type", self.kind.as_deref()),
            ("event", self.event.as_deref()),
            ("key", self.key.as_deref()),
            ("since", self.since.as_deref()),
            ("until", self.until.as_deref()),
            ("cursor", cursor),
        ];
        for (name, value) in filters {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        query.append_pair("limit", &limit.to_string());
        query.finish()
    }
}

/// `tidegate routes`.
pub(super) async fn routes(admin: &Admin, json: bool) -> Result<(), String> {
    let answer = admin.get("/api/v1/routes").await?;
    if json {
        return print(&format!("{answer}\n"));
    }
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
    print(&table.render())
}

/// `tidegate upstreams`.
pub(super) async fn upstreams(admin: &Admin, json: bool) -> Result<(), String> {
    let answer = admin.get("/api/v1/upstreams").await?;
    if json {
        return print(&format!("{answer}\n"));
    }
    let mut table =
        Table::new(&["UPSTREAM", "BREAKER", "IN FLIGHT", "LIMITS USED", "PAUSED UNTIL", "URL"]);
    for upstream in items(&answer["upstreams"]) {
        let limits = items(&upstream["limits"]).map(|limit| {
            let used = limit["used"].as_f64().unwrap_or_default() * 100.0;
            format!("{used:.0}% of {}/{}ms", text(&limit["limit"]), text(&limit["period_ms"]))
        });
        let limits: Vec<String> = limits.collect();
        table.row([
            text(&upstream["name"]),
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
    print(&table.render())
}

/// `tidegate deliveries list`: follows cursors until it has `limit` or the end.
pub(super) async fn deliveries(admin: &Admin, filters: &Filters, json: bool) -> Result<(), String> {
    const PAGE: usize = 500;
    let mut found: Vec<Value> = Vec::new();
    let mut cursor: Option<String> = None;
    while found.len() < filters.limit {
        let query = filters.query(cursor.as_deref(), (filters.limit - found.len()).min(PAGE));
        let page = admin.get(&format!("/api/v1/deliveries?{query}")).await?;
        found.extend(items(&page["deliveries"]).cloned());
        cursor = page["next"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    if json {
        let body = serde_json::json!({ "deliveries": found, "next": cursor });
        return print(&format!("{body}\n"));
    }
    let mut table = Table::new(&[
        "ID", "EVENT", "ROUTE", "STATE", "REASON", "KEY", "ATTEMPTS", "ACCEPTED", "DUE",
    ]);
    for delivery in &found {
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
    print(&table.render())
}

/// `tidegate deliveries show`.
pub(super) async fn delivery(admin: &Admin, id: &str, json: bool) -> Result<(), String> {
    let id: String = url::form_urlencoded::byte_serialize(id.as_bytes()).collect();
    let delivery = admin.get(&format!("/api/v1/deliveries/{id}")).await?;
    if json {
        return print(&format!("{delivery}\n"));
    }
    let mut shown = String::new();
    for key in [
        "id",
        "route",
        "upstream",
        "state",
        "reason",
        "detail",
        "key",
        "event_id",
        "type",
        "attempt_count",
        "accepted_at",
        "due_at",
    ] {
        let value = text(&delivery[key]);
        if value != "-" {
            shown.push_str(&format!("{key:<14} {value}\n"));
        }
    }
    match &delivery["event"] {
        Value::Null => {
            shown.push_str(&format!("\nno event; it came as\n{:#}\n", delivery["about"]));
            shown.push_str(&format!("raw (Base64): {}\n", text(&delivery["raw_base64"])));
        }
        event => shown.push_str(&format!("\nevent\n{event:#}\n")),
    }
    for attempt in items(&delivery["attempts"]) {
        let took = attempt["duration_ms"].as_f64().unwrap_or_default();
        shown.push_str(&format!(
            "\nattempt {} at {}: {} in {took:.1} ms {}\n",
            text(&attempt["number"]),
            text(&attempt["at"]),
            text(&attempt["result"]),
            attempt["detail"].as_str().unwrap_or_default(),
        ));
        for (sign, side) in [('>', "request"), ('<', "response")] {
            for line in attempt[side].as_str().unwrap_or_default().lines() {
                shown.push_str(&format!("  {sign} {line}\n"));
            }
        }
    }
    print(&shown)
}

/// To stdout; a reader that went away (`| head`) is no failure.
pub(super) fn print(text: &str) -> Result<(), String> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        // What comes from outside must not move the cursor or colour the terminal.
        Value::String(text) => text.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
        other => other.to_string(),
    }
}

fn age(seconds: f64) -> String {
    match seconds {
        s if s < 60.0 => format!("{s:.1}s"),
        s if s < 3600.0 => format!("{:.0}m", s / 60.0),
        s if s < 86_400.0 => format!("{:.1}h", s / 3600.0),
        s => format!("{:.1}d", s / 86_400.0),
    }
}

/// Columns as wide as their widest cell.
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(titles: &[&str]) -> Self {
        Self { rows: vec![titles.iter().map(|title| (*title).to_owned()).collect()] }
    }

    fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    fn render(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            let line: Vec<String> = cells.collect();
            text.push_str(line.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["A", "LONG"]);
        table.row(["wider".to_owned(), "x".to_owned()]);
        assert_eq!(table.render(), "A      LONG\nwider  x\n");
    }

    #[test]
    fn what_comes_from_outside_cannot_move_the_cursor() {
        assert_eq!(text(&Value::from("a\u{1b}[2Jb\n")), "a?[2Jb?");
    }
}
