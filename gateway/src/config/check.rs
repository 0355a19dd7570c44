//! What no single value shows: names that must resolve, and settings that must agree.

pub(crate) mod build;
mod cases;
mod publisher;
mod route;
mod upstream;
mod webhook;

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use serde_json::{Map, Value};
use tidegate_adapters::units;

use super::{
    report::{Place, Problem},
    walk::{Places, place_of},
};

/// The configuration as read, which may have holes where problems were told already.
pub(crate) struct Check<'c> {
    root: &'c Value,
    places: &'c Places,
    /// What is wrong.
    pub(crate) problems: Vec<Problem>,
    /// What is odd.
    pub(crate) warnings: Vec<Problem>,
}

impl<'c> Check<'c> {
    /// A check that has not begun.
    pub(crate) fn new(root: &'c Value, places: &'c Places) -> Self {
        Self { root, places, problems: Vec::new(), warnings: Vec::new() }
    }

    /// Looks at everything.
    pub(crate) fn run(&mut self) {
        self.server();
        self.admin();
        if self.root.pointer("/broker/rabbitmq/tls").is_some() {
            let url = self.root.pointer("/broker/rabbitmq/url").and_then(Value::as_str);
            self.tls("broker.rabbitmq.tls", url.is_none_or(|url| url.starts_with("amqps:")));
        }
        let called: BTreeSet<&str> = self
            .section("routes")
            .filter_map(|(_, route)| route.pointer("/to/http/upstream")?.as_str())
            .collect();
        for (name, upstream) in self.section("upstreams") {
            upstream::check(self, name, upstream, called.contains(name.as_str()));
        }
        route::check_all(self);
        cases::check_all(self);
    }

    /// The entries of `upstreams` or `routes`.
    fn section(&self, name: &str) -> impl Iterator<Item = (&'c String, &'c Value)> + use<'c> {
        self.root.get(name).and_then(Value::as_object).into_iter().flatten()
    }

    fn tell(&mut self, path: &str, message: impl Into<String>) {
        let problem = Problem::new(&place_of(self.places, path), path, message);
        self.problems.push(problem);
    }

    fn warn(&mut self, path: &str, message: impl Into<String>) {
        let problem = Problem::new(&place_of(self.places, path), path, message);
        self.warnings.push(problem);
    }

    /// Whether `path` was written, rather than filled in.
    fn is_written(&self, path: &str) -> bool {
        self.places.get(path).is_some_and(|place| *place != Place::Default)
    }

    fn server(&mut self) {
        let text = |key| self.root.get("server")?.get(key)?.as_str();
        let (Some(body), Some(all)) = (text("max_body"), text("max_buffered")) else { return };
        let size = |text| units::parse_size(text).unwrap_or_default();
        if size(body) > size(all) {
            let message = format!(
                "{body} could never be received while `server.max_buffered`, all bodies together, \
                 is {all}"
            );
            self.tell("server.max_body", message);
        }
    }

    fn admin(&mut self) {
        let Some(admin) = self.root.get("admin") else { return };
        let listen = address(admin);
        let tokens = admin.get("tokens").and_then(Value::as_object);
        if let Some(listen) = listen
            && !listen.ip().is_loopback()
            && tokens.is_some_and(Map::is_empty)
        {
            self.tell(
                "admin.listen",
                format!(
                    "listens on {listen}, beyond this machine, so `admin.tokens` must have one; \
                     or listen on 127.0.0.1"
                ),
            );
        }
        let server = self.root.get("server").and_then(address);
        if let (Some(server), Some(admin)) = (server, listen)
            && server == admin
            && server.port() != 0
        {
            self.tell("admin.listen", "is `server.listen` too; give each its own port");
        }
        let mut seen: Vec<(&str, &String)> = Vec::new();
        for (name, token) in tokens.into_iter().flatten() {
            let Some(token) = token.get("token").and_then(Value::as_str) else { continue };
            if let Some((_, first)) = seen.iter().find(|(known, _)| *known == token) {
                self.tell(
                    &format!("admin.tokens.{name}.token"),
                    format!("is the token of `{first}` too; the log could not tell them apart"),
                );
            }
            seen.push((token, name));
        }
    }

    /// A certificate needs its key, and TLS a URL that uses it.
    fn tls(&mut self, path: &str, used: bool) {
        // By place, not by value: a file that could not be read leaves a hole, and was told.
        let written = |name| self.places.contains_key(&format!("{path}.{name}"));
        match (written("cert"), written("key")) {
            (true, false) => self.tell(path, "has `cert` and needs its `key`"),
            (false, true) => self.tell(path, "has `key` and needs its `cert`"),
            _ => {}
        }
        if !used {
            self.tell(path, "has no effect, for the url does not begin with https:// or amqps://");
        }
    }

    /// `first` must not exceed `second`.
    fn ordered(&mut self, path: &str, of: &Value, first: &str, second: &str) {
        let read = |key| of.get(key).and_then(Value::as_str).and_then(duration);
        if let (Some(a), Some(b)) = (read(first), read(second))
            && a > b
        {
            let text = |key: &str| of[key].as_str().unwrap_or_default().to_owned();
            let message =
                format!("`{first}` ({}) is longer than `{second}` ({})", text(first), text(second));
            self.tell(path, message);
        }
    }
}

fn duration(text: &str) -> Option<Duration> {
    units::parse_duration(text).ok()
}

/// As configuration writes it, in the largest unit that fits.
pub(crate) fn in_words(duration: Duration) -> String {
    const UNITS: [(u128, &str); 4] =
        [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let ms = duration.as_millis();
    let unit = UNITS.iter().find(|(unit, _)| ms >= *unit && ms.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{ms}ms"), |(unit, name)| format!("{}{name}", ms / unit))
}

fn address(section: &Value) -> Option<SocketAddr> {
    section.get("listen")?.as_str()?.parse().ok()
}
