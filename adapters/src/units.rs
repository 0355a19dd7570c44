//! How configuration writes durations (`500ms 10s 5m 1h 3d`), sizes (`64KiB 1MiB 2GiB`) and `off`.
//!
//! Used as `#[serde(with = "…")]`. `false` is the same as `off`.

use std::time::Duration;

use serde::{Deserialize as _, Deserializer, de::Error as _};

/// Reads `500ms`, `10s`, `5m`, `1h`, `3d`; a bare `0` too. No other units, no sums, no sign.
///
/// # Errors
/// What to write instead.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" if number == "0" => 1,
        _ => {
            return Err(format!(
                "`{text}` is not a duration: write 500ms, 10s, 5m, 1h or 3d"
            ));
        }
    };
    let number: u64 = number
        .parse()
        .map_err(|_| format!("`{text}` is not a duration: write 500ms, 10s, 5m, 1h or 3d"))?;
    number
        .checked_mul(ms)
        .filter(|ms| *ms <= DURATION_MAX_MS)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is too long: 36500d at most"))
}

/// A hundred years: far beyond use, and safe to add to any clock.
const DURATION_MAX_MS: u64 = 36_500 * 86_400_000;

/// Reads `512B`, `64KiB`, `1MiB`, `2GiB`, `1TiB`; a bare number is bytes.
///
/// # Errors
/// What to write instead.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text);
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(format!("`{text}` is not a size: write 64KiB, 1MiB or 2GiB")),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| format!("`{text}` is not a size: write 64KiB, 1MiB or 2GiB"))?;
    number
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes <= i64::MAX as u64)
        .ok_or_else(|| format!("`{text}` is too large"))
}

fn split_unit(text: &str) -> (&str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text.split_at(digits)
}

/// A scalar as YAML may have typed it: text, or a number or boolean that stands for text.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Whole(u64),
    Flag(bool),
}

impl Scalar {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Whole(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
        }
    }
}

fn is_off(text: &str) -> bool {
    matches!(text, "off" | "false")
}

/// `#[serde(with)]`: a duration.
pub mod duration {
    use super::*;

    /// Reads one.
    ///
    /// # Errors
    /// When it is none.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        parse_duration(&Scalar::deserialize(from)?.text()).map_err(D::Error::custom)
    }
}

/// `#[serde(with)]`: a duration, or `off`.
pub mod duration_or_off {
    use super::*;

    /// Reads one; `None` is off.
    ///
    /// # Errors
    /// When it is neither.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        let text = Scalar::deserialize(from)?.text();
        if is_off(&text) {
            return Ok(None);
        }
        parse_duration(&text).map(Some).map_err(D::Error::custom)
    }
}

/// `#[serde(with)]`: a size in bytes.
pub mod size {
    use super::*;

    /// Reads one.
    ///
    /// # Errors
    /// When it is none.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        parse_size(&Scalar::deserialize(from)?.text()).map_err(D::Error::custom)
    }
}

/// `#[serde(with)]`: text, or `off`.
pub mod text_or_off {
    use super::*;

    /// Reads one; `None` is off.
    ///
    /// # Errors
    /// When it is not a scalar.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
        let text = Scalar::deserialize(from)?.text();
        Ok((!is_off(&text)).then_some(text))
    }
}

/// `#[serde(with)]`: an HTTP method.
pub mod method {
    use super::*;

    /// Reads one.
    ///
    /// # Errors
    /// When it is no method token.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<http::Method, D::Error> {
        let text = String::deserialize(from)?;
        text.parse()
            .map_err(|_| D::Error::custom(format!("`{text}` is not an HTTP method")))
    }
}

/// Any type that reads itself from text; numbers count as text (`404`).
pub(crate) fn parsed<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err = String>,
{
    Scalar::deserialize(from)?
        .text()
        .parse()
        .map_err(D::Error::custom)
}
