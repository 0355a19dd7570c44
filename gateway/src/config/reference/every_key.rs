//! `config/every-key.yaml`: every key, its default or an example, and one line about each.
//!
//! Of what excludes each other one is written, and the others as comments that begin with `#: `;
//! so is what names files, since there are none.

use std::fmt::Write as _;

use super::{
    super::schema::{Key, ROOT, Shape},
    about::{example, line},
};

const HEAD: &str = "\
# Every key there is, in order: its default, or where there is none an example. Made from the
# schema, and good as it stands: `tidegate check -c config/every-key.yaml`. Lines that begin with
# `#: ` are alternatives to what is written beside them, or name files that are not here. README.md
# beside this file explains them; TESTING.md is about `tests:`.
#
# yaml-language-server: $schema=schema.json
";

/// What is expected of the routes; TESTING.md explains it.
const TESTS: &str = "
# What is expected of them, played by `tidegate test`; nothing of it runs here
tests:
  an order becomes points:
    route: award-points
    now: '2026-01-01T00:00:00Z'
    given:
      message:
        body:
          id: o-1
          kind: order
          customer: c7
          at: '2026-01-01T00:00:00Z'
          tenant: t1
          data: { customerId: c7, orderId: o-1, total: 12.5, tenant: t1 }
        #: # Instead of body, where it is not JSON
        #: raw: 'o-1;12.5'
        content_type: application/json
        #: # A packed body is not looked into
        #: content_encoding: gzip
        headers: { x-shop: s1 }
        properties: { message_id: m-1 }
        routing_key: order.confirmed.v1
        exchange: orders
    answers:
      - { status: 503, headers: { x-rate-limit-reset: '1767225607' }, raw: '{}' }
      - { fault: timeout }
      - { status: 202, body: { success: true } }
    expect:
      outcome: delivered
      #: # Where the outcome is dead
      #: reason: rejected
      key: c7
      waits: [7s, 2s]
      requests:
        - method: POST
          path: '/v2/members/c7/points?source=%2Fshop&api_key=an-example-key-012345'
          body: { points: 12, reference: o-1 }
          #: # Where encode is form
          #: form: { points: '12' }
        - raw: '{\"points\":12,\"reference\":\"o-1\"}'
        - headers: { X-Order: o-1 }
      published:
        - exchange: loyalty
          key: loyalty.points-delivered.v1
          content_type: application/cloudevents+json
          headers: { x-origin: /loyalty }
          event: { subject: c7, data: { order: o-1 } }
  an order of nothing is filtered:
    route: award-points
    given:
      event:
        type: shop.order.v1
        kind: order
        data: { customerId: c7, orderId: o-2, total: 0 }
    expect:
      outcome: filtered
  a webhook becomes an event:
    route: loyalty-webhooks
    given:
      webhook:
        query: ''
        headers: { X-Sender: loyalty }
        body:
          items: [{ type: earned, data: { customerId: c7, total: 3 } }]
        #: # Instead of body
        #: form: { type: earned }
        sign: true
    expect:
      published:
        - exchange: loyalty
          key: loyalty.earned.v1
      answer:
        status: 202
        headers: { X-Received: 'yes' }
        body: { ok: true }
";

/// The routes it has: between them every source and every target.
const ROUTES: [&str; 2] = ["award-points", "loyalty-webhooks"];

/// The page.
#[must_use]
pub fn every_key() -> String {
    page(None)
}

/// The page with the alternative at path `active` in force, rather than the first.
pub(super) fn page(active: Option<&str>) -> String {
    let mut page = Page { text: HEAD.to_owned(), active, route: 0 };
    let Shape::Map(sections) = ROOT else { return page.text };
    for section in sections.iter().filter(|key| key.is_offered() && key.name != "tests") {
        page.text.push('\n');
        page.key(section, "", 0, false);
    }
    page.text.push_str(TESTS);
    page.text
}

struct Page<'a> {
    text: String,
    active: Option<&'a str>,
    /// Which of [`ROUTES`] is being written.
    route: usize,
}

impl Page<'_> {
    fn put(&mut self, indent: usize, commented: bool, text: &str) {
        let mark = if commented { "#: " } else { "" };
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{:indent$}{mark}{text}", "");
    }

    fn key(&mut self, key: &Key, above: &str, indent: usize, commented: bool) {
        let path = join(above, key.name);
        let commented = commented || !self.is_active(&path, key);
        self.put(indent, commented, &format!("# {}", line(&path)));
        let value = example(&path, key);
        let inline = matches!(value.as_str(), "{}" | "[]" | "") && has_keys(&key.shape);
        if !inline && !is_named_map(&key.shape) {
            return self.put(indent, commented, &format!("{}: {value}", key.name));
        }
        self.put(indent, commented, &format!("{}:", key.name));
        self.below(&key.shape, &path, &value, indent + 2, commented);
    }

    fn below(&mut self, shape: &Shape, path: &str, name: &str, indent: usize, commented: bool) {
        match shape {
            Shape::Map(keys) | Shape::OneOf(keys, _) => {
                for key in keys.iter().filter(|key| key.is_offered()) {
                    if self.belongs(path, key) {
                        self.key(key, path, indent, commented);
                    }
                }
            }
            Shape::Off(shape) => self.below(shape, path, name, indent, commented),
            Shape::List(shape) | Shape::ListOrOne(shape) => {
                self.put(indent, commented, "-");
                self.below(shape, path, name, indent + 2, commented);
            }
            Shape::Named(_, shape) => {
                let names = if path == "routes" { &ROUTES[..] } else { &[name][..] };
                for (route, name) in names.iter().enumerate() {
                    self.route = route;
                    self.put(indent, commented, &format!("{name}:"));
                    self.below(shape, &join(path, "<name>"), "", indent + 2, commented);
                }
            }
            Shape::Scalar(_) | Shape::Any => {}
        }
    }

    /// Each source and target is in one of the routes; replies and `Retry-After` come of calls.
    fn belongs(&self, path: &str, key: &Key) -> bool {
        let first = self.route == 0;
        match (path, key.name) {
            ("routes.<name>.from", "rabbitmq") | ("routes.<name>.to", "http") => first,
            ("routes.<name>.from", "webhook") | ("routes.<name>.to", "rabbitmq") => !first,
            ("routes.<name>", "reply") | ("routes.<name>.retry", "retry_after_max") => first,
            _ => true,
        }
    }

    /// Whether it is written, and not as a comment.
    fn is_active(&self, path: &str, key: &Key) -> bool {
        if self.active == Some(path) {
            return true;
        }
        if key.name == "tls" {
            return false;
        }
        let Some(group) = alternatives(path) else { return true };
        let prefix = &path[..path.len() - key.name.len()];
        let chosen = group.iter().find(|name| self.active == Some(&format!("{prefix}{name}")));
        *chosen.unwrap_or(&group[0]) == key.name
    }
}

/// Of which only one may be there, with the key at `path` among them.
pub(super) fn alternatives(path: &str) -> Option<&'static [&'static str]> {
    const GROUPS: [(&str, &[&str]); 4] = [
        ("broker", &["rabbitmq", "embedded"]),
        ("upstreams.<name>.auth", &["bearer", "basic", "oauth2"]),
        ("upstreams.<name>.auth", &["standard_webhooks", "hmac"]),
        (
            "routes.<name>.from.webhook.verify",
            &[
                "standard_webhooks",
                "hmac",
                "stripe",
                "github",
                "shopify",
                "slack",
                "square",
                "twilio",
                "api_key",
                "basic",
                "none",
            ],
        ),
    ];
    let (above, name) = path.rsplit_once('.')?;
    let group = GROUPS.iter().find(|(of, names)| *of == above && names.contains(&name));
    group.map(|(_, names)| *names)
}

fn join(above: &str, name: &str) -> String {
    if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") }
}

/// Whether there is something to write below it.
fn has_keys(shape: &Shape) -> bool {
    match shape {
        Shape::Map(keys) | Shape::OneOf(keys, _) => !keys.is_empty(),
        Shape::Named(_, shape)
        | Shape::List(shape)
        | Shape::ListOrOne(shape)
        | Shape::Off(shape) => has_keys(shape),
        Shape::Scalar(_) | Shape::Any => false,
    }
}

/// Whether users name what it holds, and each has keys of its own.
fn is_named_map(shape: &Shape) -> bool {
    matches!(shape, Shape::Named(_, shape) if has_keys(shape))
}
