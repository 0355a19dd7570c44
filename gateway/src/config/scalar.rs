//! One value: from text to what its [`Kind`] asks for.
//!
//! Text stays text until here. Messages quote a value only when it cannot be a secret.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tidegate_adapters::{
    expression::{Expression, ExpressionError},
    http::{RetryOn, StatusPattern},
    secret::Mask,
    units,
};

use super::{
    address,
    check::in_words,
    names,
    report::{did_you_mean, one_of},
    schema::{Kind, Pem},
    text::{self, Wrong},
    tree::{Part, Scalar},
};

/// Reads `scalar` as `kind`; secrets go to `mask`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read(kind: Kind, scalar: &Scalar, null: bool, mask: &Mask) -> Result<Value, Wrong> {
    let text = scalar.text.as_str();
    let is_secret = matches!(kind, Kind::Secret | Kind::HeaderSecret | Kind::WebhookSecret);
    // An exchange has words of its own for it.
    let may_be_empty = matches!(kind, Kind::AnyText) || (matches!(kind, Kind::Exchange) && !null);
    if (text.is_empty() && !may_be_empty) || (null && is_secret) {
        return Err(empty(is_secret, null).into());
    }
    // Never quoted: secrets, URLs (they may hold credentials) and what `${file:}` brought.
    let shown = if scalar.secret { "the value" } else { text };
    match kind {
        Kind::Text | Kind::AnyText | Kind::Path => Ok(text.into()),
        Kind::ShortText => names::short(text).map(|()| text.into()).map_err(Wrong::from),
        Kind::Exchange => names::exchange(text).map(|()| text.into()).map_err(Wrong::from),
        Kind::Secret => Ok(secret(text, mask)),
        Kind::HeaderSecret => header_secret(text, mask),
        Kind::WebhookSecret => {
            mask.add(text.trim_start_matches("whsec_"));
            text::webhook_secret(text).map(|()| secret(text, mask)).map_err(Wrong::from)
        }
        Kind::Flag => match text {
            "true" => Ok(true.into()),
            "false" => Ok(false.into()),
            _ => Err(format!("`{shown}` is neither `true` nor `false`").into()),
        },
        Kind::Whole(least, most) => whole(text, shown, least, most),
        Kind::Number(..) | Kind::Share => number(kind, text, shown),
        Kind::Duration(least, most) => duration(text, shown, least, most),
        Kind::DurationOrOff if is_off(text) => Ok("off".into()),
        Kind::DurationOrOff => {
            duration(text, shown, 1, u64::MAX).map_err(|wrong| wrong.or("`off`"))
        }
        Kind::Size(least, most) => size(text, shown, least, most),
        Kind::Word(words) if words.contains(&text) => Ok(text.into()),
        Kind::Word(words) => {
            let near = did_you_mean(text, words.iter().copied());
            Err(format!("`{shown}` is not {}{near}", one_of(words)).into())
        }
        Kind::Attempts if text == "unlimited" => Ok(text.into()),
        Kind::Attempts => {
            whole(text, shown, 1, u32::MAX.into()).map_err(|wrong| wrong.or("`unlimited`"))
        }
        Kind::Listen => listen(text, shown),
        Kind::Url(purpose) => {
            address::check(text, purpose, mask).map(|()| text.into()).map_err(Wrong::from)
        }
        Kind::Network => address::network(text)
            .map(Value::from)
            .map_err(|why| format!("`{shown}` is not a network: {why}").into()),
        Kind::Pem(pem) => text::pem(text, pem).map_err(Wrong::from).map(|content| {
            if pem == Pem::Key {
                text::private_key_lines(&content).for_each(|line| mask.add(line));
            }
            text.into()
        }),
        Kind::Header => names::header(text).map(|()| text.into()).map_err(Wrong::from),
        Kind::HeaderOrOff if is_off(text) => Ok("off".into()),
        Kind::HeaderOrOff => names::header(text).map(|()| text.into()).map_err(Wrong::from),
        Kind::Method => method(text, shown),
        Kind::Status => parsed::<StatusPattern>(text),
        Kind::RetryOn => parsed::<RetryOn>(text),
        Kind::Signed => text::signed(text).map(|()| text.into()).map_err(Wrong::from),
        Kind::Body if text == "none" => Ok(text.into()),
        Kind::Expression | Kind::Body => expression(scalar),
        Kind::Template(place) => text::template(scalar, Some(place)),
        Kind::RequestPath => text::request_path(scalar),
        Kind::WebhookPath => text::webhook_path(text).map(|()| text.into()),
    }
}

/// `off` and `false` are the same.
pub(crate) fn is_off(text: &str) -> bool {
    matches!(text, "off" | "false")
}

fn empty(is_secret: bool, null: bool) -> &'static str {
    match (is_secret, null) {
        (true, _) => "a secret must not be empty",
        (false, true) => "has no value; write one, or leave the key out",
        (false, false) => "must not be empty",
    }
}

fn secret(text: &str, mask: &Mask) -> Value {
    mask.add(text);
    text.into()
}

fn header_secret(text: &str, mask: &Mask) -> Result<Value, Wrong> {
    let value = secret(text, mask);
    if text.bytes().any(|b| b.is_ascii_control()) {
        return Err(
            "holds a line break or another control character, which no header can carry".into()
        );
    }
    Ok(value)
}

fn whole(text: &str, shown: &str, least: u64, most: u64) -> Result<Value, Wrong> {
    let number: u64 = text
        .parse()
        .map_err(|_| format!("`{shown}` is not a whole number from {least} to {most}"))?;
    if !(least..=most).contains(&number) {
        return Err(format!("`{shown}` is not a whole number from {least} to {most}").into());
    }
    Ok(number.into())
}

fn number(kind: Kind, text: &str, shown: &str) -> Result<Value, Wrong> {
    let range = match kind {
        Kind::Number(least, most) => format!("from {least} to {most}"),
        _ => "above 0 and up to 1".to_owned(),
    };
    let fits = |number: &f64| match kind {
        Kind::Number(least, most) => (least..=most).contains(number),
        _ => *number > 0.0 && *number <= 1.0,
    };
    text.parse::<f64>()
        .ok()
        .filter(fits)
        .map(Value::from)
        .ok_or_else(|| format!("`{shown}` is not a number {range}").into())
}

fn duration(text: &str, shown: &str, least: u64, most: u64) -> Result<Value, Wrong> {
    let duration = units::parse_duration(text).map_err(|why| why.replace(text, shown))?;
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms < least {
        let least = if least == 1 { "above 0".into() } else { format!("at least {least}ms") };
        return Err(format!("`{shown}` is too short: it must be {least}").into());
    }
    if ms > most {
        let most = in_words(Duration::from_millis(most));
        return Err(format!("`{shown}` is too long: {most} at most").into());
    }
    Ok(text.into())
}

fn size(text: &str, shown: &str, least: u64, most: u64) -> Result<Value, Wrong> {
    let bytes = units::parse_size(text).map_err(|why| why.replace(text, shown))?;
    if bytes < least {
        return Err(format!("`{shown}` is too small: {} at least", as_size(least)).into());
    }
    if bytes > most {
        return Err(format!("`{shown}` is too large: {} at most", as_size(most)).into());
    }
    Ok(text.into())
}

fn as_size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = UNITS.iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{bytes}B"), |(unit, name)| format!("{}{name}", bytes / unit))
}

fn listen(text: &str, shown: &str) -> Result<Value, Wrong> {
    if text.parse::<SocketAddr>().is_ok() {
        return Ok(text.into());
    }
    let remedy = match text.strip_prefix(':').or_else(|| text.strip_prefix("localhost:")) {
        Some(port) if text.starts_with(':') && !shown.is_empty() => format!("0.0.0.0:{port}"),
        Some(port) => format!("127.0.0.1:{port}"),
        None => "127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080".to_owned(),
    };
    Err(format!("`{shown}` is not an address and port: write {remedy}").into())
}

fn method(text: &str, shown: &str) -> Result<Value, Wrong> {
    match text {
        "CONNECT" | "TRACE" => Err(format!("`{shown}` is no method for an API call").into()),
        _ if text.bytes().any(|b| b.is_ascii_lowercase()) => {
            Err(format!("methods are written in capitals: {}", shown.to_uppercase()).into())
        }
        _ => match text.parse::<http::Method>() {
            Ok(_) => Ok(text.into()),
            Err(_) => Err(format!("`{shown}` is not an HTTP method").into()),
        },
    }
}

fn parsed<T: std::str::FromStr<Err = String>>(text: &str) -> Result<Value, Wrong> {
    text.parse::<T>().map(|_| text.into()).map_err(Wrong::from)
}

/// Compiles a jq program. Nothing may have been put into it: it would be read as jq.
fn expression(scalar: &Scalar) -> Result<Value, Wrong> {
    if scalar.parts.iter().any(|part| matches!(part, Part::Inserted(_))) {
        return Err("`${…}` cannot be used in an expression, for its result would be read as jq; \
            write the value itself, or `$${` where a literal `${` is meant"
            .into());
    }
    Expression::compile(&scalar.text)
        .map(|_| scalar.text.as_str().into())
        .map_err(|ExpressionError { message, offset }| Wrong { message, offset })
}
