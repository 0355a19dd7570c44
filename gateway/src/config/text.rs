//! Text with rules of its own: templates, PEM files, signing patterns, webhook secrets.

use base64::Engine as _;
use serde_json::Value;
use tidegate_adapters::expression::{ExpressionError, Place, Template};

use super::{
    report::did_you_mean,
    schema::Pem,
    tree::{Part, Scalar},
};

/// What is wrong with a value, and at which byte of it, where that is known.
#[derive(Debug)]
pub(crate) struct Wrong {
    /// What is wrong and what to write instead.
    pub(crate) message: String,
    /// Byte offset in the value's text.
    pub(crate) offset: Option<usize>,
}

impl From<String> for Wrong {
    fn from(message: String) -> Self {
        Self { message, offset: None }
    }
}

impl From<&str> for Wrong {
    fn from(message: &str) -> Self {
        message.to_owned().into()
    }
}

impl Wrong {
    /// Names one more thing that could have been written.
    pub(crate) fn or(mut self, alternative: &str) -> Self {
        self.message = format!("{}, or {alternative}", self.message);
        self
    }
}

/// Compiles a template. What interpolation put in is literal text: its braces are doubled, and
/// within a placeholder, where it would be read as jq, it is refused.
pub(crate) fn template(scalar: &Scalar, place: Option<Place>) -> Result<Value, Wrong> {
    let mut scan = Braces::default();
    let mut text = String::with_capacity(scalar.text.len());
    let written = [Part::Written(scalar.text.clone())];
    let parts = if scalar.parts.is_empty() { &written[..] } else { &scalar.parts[..] };
    for part in parts {
        match part {
            Part::Written(written) => {
                scan.read(written);
                text.push_str(written);
            }
            Part::Inserted(_) if scan.inside() => {
                return Err("`${…}` cannot be used inside `{…}`, for its result would be read as \
                    jq; put it outside the braces"
                    .into());
            }
            Part::Inserted(value) => {
                text.push_str(&value.replace('{', "{{").replace('}', "}}"));
            }
        }
    }
    let compiled = Template::compile(&text);
    let fits = match (&compiled, place) {
        (Ok(template), Some(place)) => template.check_place(place),
        _ => Ok(()),
    };
    match compiled.map(drop).and(fits) {
        Ok(()) => Ok(text.into()),
        Err(_) if scalar.secret => Err("does not fit here; what is wrong is not shown, for it \
            holds the content of a `${file:}`"
            .into()),
        Err(ExpressionError { message, offset }) => Err(Wrong { message, offset }),
    }
}

/// A path is appended to the upstream's url, and its query is a key of its own.
pub(crate) fn request_path(scalar: &Scalar) -> Result<Value, Wrong> {
    let text = &scalar.text;
    if !text.starts_with('/') {
        return Err("a path begins with `/`; it is appended to the upstream's url".into());
    }
    let mut scan = Braces::default();
    let cut = text.char_indices().find(|(at, c)| {
        scan.read(&text[*at..*at + c.len_utf8()]);
        !scan.inside() && matches!(c, '?' | '#')
    });
    if let Some((at, c)) = cut {
        let message = match c {
            '?' => "a path has no query; write it under `query:` beside it",
            _ => "a path has no fragment (`#…`)",
        };
        return Err(Wrong { message: message.into(), offset: Some(at) });
    }
    template(scalar, Some(Place::Path))
}

/// The exact path of a webhook: in the characters that a request can hold (RFC 3986 §3.3), and in
/// one spelling, so that two paths that are written differently are two paths.
///
/// # Errors
/// What is wrong with it, and where.
pub(crate) fn webhook_path(path: &str) -> Result<(), Wrong> {
    let at = |offset, message: &str| Err(Wrong { message: message.into(), offset: Some(offset) });
    if !path.starts_with('/') {
        return at(0, "a path begins with `/`");
    }
    for (offset, c) in path.char_indices() {
        match c {
            '?' => return at(offset, "a path has no query; a webhook is found by its path alone"),
            '#' => return at(offset, "a path has no fragment (`#…`)"),
            '{' | '}' => {
                return at(offset, "the path of a webhook is exact: it has no placeholders");
            }
            '%' => escape(&path[offset..]).or_else(|wrong| at(offset, &wrong))?,
            _ if c.is_ascii_alphanumeric() || "-._~%!$&'()*+,;=:@/".contains(c) => {}
            _ => return at(offset, &format!("`{c}` cannot stand in a path; percent-encode it")),
        }
    }
    let mut offset = 1;
    for segment in path[1..].split('/') {
        let end = offset + segment.len();
        if matches!(segment, "." | "..") {
            return at(offset, &format!("has the segment `{segment}`, which clients resolve"));
        }
        if segment.is_empty() && end < path.len() {
            return at(offset, "has an empty segment (`//`)");
        }
        offset = end + 1;
    }
    Ok(())
}

/// One path has one spelling here, whatever a sender makes of it (RFC 3986 §6.2.2).
fn escape(text: &str) -> Result<(), String> {
    let digits = text.get(1..3).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
    let (Some(digits), Some(byte)) = (digits, byte) else {
        return Err("a `%` begins two hexadecimal digits; write a literal one `%25`".to_owned());
    };
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        return Err(format!("`%{digits}` is `{}`: write that", char::from(byte)));
    }
    if digits.bytes().any(|b| b.is_ascii_lowercase()) {
        return Err(format!("escapes are in capitals: write `%{}`", digits.to_ascii_uppercase()));
    }
    Ok(())
}

/// Follows a template's braces as far as telling inside from outside needs it.
#[derive(Default)]
struct Braces {
    depth: usize,
    /// An outer brace that may be the first of a doubled one.
    pending: Option<char>,
    string: bool,
    escaped: bool,
}

impl Braces {
    fn read(&mut self, text: &str) {
        for c in text.chars() {
            self.step(c);
        }
    }

    fn step(&mut self, c: char) {
        if self.string {
            match (self.escaped, c) {
                (true, _) => self.escaped = false,
                (false, '\\') => self.escaped = true,
                (false, '"') => self.string = false,
                _ => {}
            }
            return;
        }
        match (self.depth, self.pending.take(), c) {
            (0, Some(first), _) if first == c => {}
            (0, Some('{'), _) => {
                self.depth = 1;
                self.step(c);
            }
            (0, _, '{' | '}') => self.pending = Some(c),
            (0, ..) => {}
            (_, _, '"') => self.string = true,
            (_, _, '{') => self.depth += 1,
            (_, _, '}') => self.depth -= 1,
            _ => {}
        }
    }

    fn inside(&self) -> bool {
        self.depth > 0 || self.pending == Some('{')
    }
}

/// Reads a PEM file and makes sure it holds what it should.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn pem(path: &str, pem: Pem) -> Result<String, String> {
    let content = std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => format!("the file {path} is not PEM (text)"),
        _ => format!("the file {path} cannot be read: {error}"),
    })?;
    let (begins, what) = match pem {
        Pem::Certificate => (&["-----BEGIN CERTIFICATE-----"][..], "certificate"),
        Pem::Key => (
            &[
                "-----BEGIN PRIVATE KEY-----",
                "-----BEGIN RSA PRIVATE KEY-----",
                "-----BEGIN EC PRIVATE KEY-----",
            ][..],
            "private key",
        ),
    };
    if begins.iter().any(|begin| content.contains(begin)) {
        return Ok(content);
    }
    if pem == Pem::Key && content.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
        return Err(format!("the key in {path} is encrypted; give one that is not"));
    }
    Err(format!("the file {path} holds no PEM {what} ({})", begins[0]))
}

/// The Base64 lines of the private keys in a PEM text; certificates are no secrets.
pub(crate) fn private_key_lines(pem: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    pem.lines().map(str::trim).filter(move |line| {
        if line.starts_with("-----") {
            inside = line.contains("BEGIN") && line.contains("PRIVATE KEY");
            return false;
        }
        inside
    })
}

/// A closed set of placeholders, and literal text.
///
/// # Errors
/// Which placeholder is unknown.
pub(crate) fn signed(text: &str) -> Result<(), String> {
    const KNOWN: [&str; 4] = ["raw", "timestamp", "id", "url"];
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let name = rest[at..].strip_prefix('{').and_then(|after| after.split_once('}'));
        match name {
            Some((name, after)) if KNOWN.contains(&name) => rest = after,
            Some((name, _)) => {
                let near = did_you_mean(name, KNOWN);
                return Err(format!(
                    "`{{{name}}}` is none of {{raw}}, {{timestamp}}, {{id}}, {{url}}{near}"
                ));
            }
            None => return Err("a brace without its partner".into()),
        }
    }
    Ok(())
}

/// Standard Webhooks: 24 to 64 bytes.
///
/// # Errors
/// What is wrong, without the secret.
pub(crate) fn webhook_secret(text: &str) -> Result<(), String> {
    let encoded = text
        .strip_prefix("whsec_")
        .ok_or("a Standard Webhooks secret begins with `whsec_`, then Base64")?;
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .map_err(|_| "what follows `whsec_` is not Base64 (standard alphabet, with padding)")?;
    match bytes.len() {
        24..=64 => Ok(()),
        n => Err(format!("a Standard Webhooks secret has 24 to 64 bytes, this one has {n}")),
    }
}
