//! What a configuration may hold: every key, its shape, and its default, in one place.
//!
//! Tables: [`settings`], [`upstream`], [`route`], of a route [`webhook`] and [`publisher`], and
//! [`tests`]. The walk reads files against them, fills in their defaults, and takes the names it
//! suggests from them.

mod names;
pub(crate) mod publisher;
pub(crate) mod route;
pub(crate) mod settings;
pub(crate) mod tests;
pub(crate) mod upstream;
pub(crate) mod webhook;

pub use names::{KeyName, key_names};
use tidegate_adapters::expression::Place as TemplatePlace;

/// What a value may look like.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// A map with these keys and no others.
    Map(&'static [Key]),
    /// A map with exactly one of these keys; the second field is the one meant when there is none.
    OneOf(&'static [Key], Option<&'static str>),
    /// A map of names to one shape.
    Named(NameRule, &'static Shape),
    /// A list of one shape.
    List(&'static Shape),
    /// A list of one shape, or one of it by itself.
    ListOrOne(&'static Shape),
    /// `off` (or `false`), or a shape.
    Off(&'static Shape),
    /// One value.
    Scalar(Kind),
    /// Whatever YAML can say, typed as YAML types it.
    Any,
}

/// A key of a map.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    /// Its name.
    pub(crate) name: &'static str,
    /// What happens when it is absent.
    pub(crate) presence: Presence,
    /// What its value looks like.
    pub(crate) shape: Shape,
}

/// What happens when a key is absent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Presence {
    /// It is a problem.
    Required,
    /// It stays absent.
    Optional,
    /// This is read in its stead, as YAML.
    Default(&'static str),
    /// It may not be there at all: promised, and not built yet. What to do instead.
    Later(&'static str),
    /// It may not be there, and never will: why, and what to do instead.
    Never(&'static str),
}

impl Key {
    /// Whether it may be written at all.
    pub(crate) fn is_offered(&self) -> bool {
        !matches!(self.presence, Presence::Later(_) | Presence::Never(_))
    }
}

/// What the free keys of a map must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameRule {
    /// `[a-z0-9][a-z0-9._-]{0,62}`: routes, upstreams, admin tokens.
    Name,
    /// An HTTP header that is not ours to set (RFC 9110 §5.1).
    Header,
    /// A header of an AMQP message that is not the envelope's to set.
    MessageHeader,
    /// A CloudEvents extension attribute: `[a-z0-9]{1,20}`, none of the core ones.
    Extension,
    /// A RabbitMQ queue argument that is not ours to set.
    Argument,
    /// Anything but nothing.
    Free,
}

/// What one value may be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// Text, not empty.
    Text,
    /// Text, empty too.
    AnyText,
    /// Text that AMQP carries as a short string: 255 bytes at most.
    ShortText,
    /// The name of an exchange to publish to.
    Exchange,
    /// Text that never shows, not empty.
    Secret,
    /// A secret that a header can carry.
    HeaderSecret,
    /// `whsec_` and 24 to 64 bytes as Base64 (Standard Webhooks).
    WebhookSecret,
    /// `true` or `false`.
    Flag,
    /// A whole number within bounds, both included.
    Whole(u64, u64),
    /// A number within bounds, both included.
    Number(f64, f64),
    /// A number above 0 and up to 1.
    Share,
    /// A duration within bounds in milliseconds, both included.
    Duration(u64, u64),
    /// A duration above 0, or `off`.
    DurationOrOff,
    /// A size in bytes within bounds, both included.
    Size(u64, u64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// Address and port to listen on.
    Listen,
    /// A URL for this use.
    Url(UrlUse),
    /// A network: `10.0.0.0/8`.
    Network,
    /// A path.
    Path,
    /// A PEM file that exists and holds this.
    Pem(Pem),
    /// `unlimited`, or how many.
    Attempts,
    /// A header name that is not ours to set.
    Header,
    /// The same, or `off`.
    HeaderOrOff,
    /// An HTTP method.
    Method,
    /// `404` or `5xx`.
    Status,
    /// An entry of `retry_on`.
    RetryOn,
    /// `{raw} {timestamp} {id} {url}` and literal text.
    Signed,
    /// A jq program.
    Expression,
    /// A jq program, or `none`.
    Body,
    /// Text with `{jq}` placeholders, for this use.
    Template(TemplatePlace),
    /// A template that begins with `/`.
    RequestPath,
    /// The exact path of a webhook.
    WebhookPath,
}

/// What a URL is for, which decides what it may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UrlUse {
    /// An upstream's base: http or https, no query, no fragment. A user in it is Basic auth.
    Base,
    /// A token endpoint: as a base without a user, with a query if need be.
    Token,
    /// A proxy: http or https, no path; a user in it is for the proxy.
    Proxy,
    /// What senders call: as a base without a user.
    Public,
    /// amqp or amqps.
    Broker,
    /// A collector of traces: http or https, no user, no query.
    Collector,
}

/// What a PEM file must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pem {
    /// At least one certificate.
    Certificate,
    /// A private key, in the open.
    Key,
}

const fn required(name: &'static str, shape: Shape) -> Key {
    Key { name, presence: Presence::Required, shape }
}

const fn optional(name: &'static str, shape: Shape) -> Key {
    Key { name, presence: Presence::Optional, shape }
}

const fn default(name: &'static str, value: &'static str, shape: Shape) -> Key {
    Key { name, presence: Presence::Default(value), shape }
}

const fn never(name: &'static str, why: &'static str) -> Key {
    Key { name, presence: Presence::Never(why), shape: Shape::Any }
}

const fn later(name: &'static str, instead: &'static str) -> Key {
    Key { name, presence: Presence::Later(instead), shape: Shape::Any }
}

/// The default of a map is the map of its defaults.
const EMPTY: &str = "{}";

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// A hundred years in milliseconds, as the longest duration that can be written.
const EVER: u64 = 36_500 * 86_400_000;
const POSITIVE: Kind = Kind::Duration(1, EVER);

/// The longest wait for a next attempt, in milliseconds: what lies much further ahead is taken for
/// the doing of a clock that was wrong.
const WAIT_MAX_MS: u64 = crate::queue::WAIT_MAX.as_secs() * 1000;

/// `tls:` of a client: private CA, mutual TLS.
static CLIENT_TLS: Shape = Shape::Map(&[
    optional("ca", Shape::Scalar(Kind::Pem(Pem::Certificate))),
    optional("cert", Shape::Scalar(Kind::Pem(Pem::Certificate))),
    optional("key", Shape::Scalar(Kind::Pem(Pem::Key))),
]);

/// All of a configuration.
pub(crate) static ROOT: Shape = Shape::Map(&[
    default("server", EMPTY, settings::SERVER),
    default("admin", EMPTY, settings::ADMIN),
    default("queue", EMPTY, settings::QUEUE),
    default("broker", EMPTY, settings::BROKER),
    default("shutdown", EMPTY, settings::SHUTDOWN),
    default("log", EMPTY, settings::LOG),
    optional("telemetry", settings::TELEMETRY),
    default("upstreams", EMPTY, Shape::Named(NameRule::Name, &upstream::UPSTREAM)),
    default("routes", EMPTY, Shape::Named(NameRule::Name, &route::ROUTE)),
    default("tests", EMPTY, Shape::Named(NameRule::Free, &tests::TEST)),
]);

/// Sections that are maps of names, merged and overridden differently from the settings.
pub(crate) const NAMED_SECTIONS: [&str; 3] = ["upstreams", "routes", "tests"];

/// Whether a top-level key is a section of settings.
pub(crate) fn is_settings_section(name: &str) -> bool {
    let Shape::Map(sections) = ROOT else { return false };
    !NAMED_SECTIONS.contains(&name) && sections.iter().any(|section| section.name == name)
}

/// Key paths of every setting that has one value and is in this build, as `queue.max_size`.
pub(crate) fn setting_paths() -> Vec<String> {
    let mut paths = Vec::new();
    let Shape::Map(sections) = ROOT else { return paths };
    for section in sections.iter().filter(|key| !NAMED_SECTIONS.contains(&key.name)) {
        collect(section, section.name.to_owned(), &mut paths);
    }
    paths
}

fn collect(key: &Key, path: String, paths: &mut Vec<String>) {
    match key.shape {
        _ if !key.is_offered() => {}
        Shape::Map(keys) | Shape::OneOf(keys, _) => {
            for key in keys {
                collect(key, format!("{path}.{}", key.name), paths);
            }
        }
        Shape::Scalar(_) => paths.push(path),
        _ => {}
    }
}
