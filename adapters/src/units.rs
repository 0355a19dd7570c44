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
            return Err(format!("`{text}` is not a duration: write 500ms, 10s, 5m, 1h or 3d"));
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
    let number: u64 =
        number.parse().map_err(|_| format!("`{text}` is not a size: write 64KiB, 1MiB or 2GiB"))?;
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
#[serde(untagged, expecting = "expected a text or a whole number")]
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
        text.parse().map_err(|_| D::Error::custom(format!("`{text}` is not an HTTP method")))
    }
}

/// Any type that reads itself from text; numbers count as text (`404`).
pub(crate) fn parsed<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err = String>,
{
    Scalar::deserialize(from)?.text().parse().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[test]
    fn durations_are_read_in_each_unit() {
        let table = [
            ("0", 0),
            ("0s", 0),
            ("500ms", 500),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("3d", 259_200_000),
            ("36500d", DURATION_MAX_MS),
        ];
        for (text, ms) in table {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_told_what_to_write() {
        let wrong = [
            "",
            "5",
            "s",
            "5 s",
            " 5s",
            "-5s",
            "+5s",
            "1.5s",
            "1e3s",
            "5S",
            "5min",
            "1h30m",
            "5us",
            "٣s",
            "99999999999999999999s",
        ];
        for text in wrong {
            let problem = parse_duration(text).unwrap_err();
            assert!(problem.contains("write 500ms, 10s, 5m, 1h or 3d"), "{text}: {problem}");
        }
        for text in ["36501d", "18446744073709551615d"] {
            assert!(parse_duration(text).unwrap_err().contains("too long"), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_in_each_unit() {
        let table = [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("64KiB", 64 << 10),
            ("1MiB", 1 << 20),
            ("2GiB", 2 << 30),
            ("1TiB", 1 << 40),
            ("9223372036854775807", i64::MAX as u64),
        ];
        for (text, bytes) in table {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_told_what_to_write() {
        for text in ["", "KiB", "1 KiB", "1kB", "1KB", "1M", "1mib", "-1", "0.5MiB", "1PiB"] {
            let problem = parse_size(text).unwrap_err();
            assert!(problem.contains("write 64KiB, 1MiB or 2GiB"), "{text}: {problem}");
        }
        for text in ["9223372036854775808", "8388608TiB"] {
            assert!(parse_size(text).unwrap_err().contains("too large"), "{text}");
        }
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Settings {
        #[serde(with = "duration")]
        timeout: Duration,
        #[serde(with = "duration_or_off")]
        dedupe: Option<Duration>,
        #[serde(with = "size")]
        body: u64,
        #[serde(with = "text_or_off")]
        header: Option<String>,
        #[serde(with = "method")]
        method: http::Method,
    }

    fn settings(change: (&str, serde_json::Value)) -> Result<Settings, String> {
        let mut json = serde_json::json!({
            "timeout": "10s", "dedupe": "10m", "body": "1MiB", "header": "Key", "method": "POST",
        });
        json[change.0] = change.1;
        serde_json::from_value(json).map_err(|error| error.to_string())
    }

    #[test]
    fn off_and_false_are_the_same() {
        for off in [serde_json::json!("off"), serde_json::json!("false"), false.into()] {
            assert_eq!(settings(("dedupe", off.clone())).unwrap().dedupe, None);
            assert_eq!(settings(("header", off)).unwrap().header, None);
        }
        let on = settings(("header", "Idempotency-Key".into())).unwrap();
        assert_eq!(on.header.as_deref(), Some("Idempotency-Key"));
        assert_eq!(on.dedupe, Some(Duration::from_secs(600)));
        assert_eq!(on.method, http::Method::POST);
    }

    #[test]
    fn numbers_stand_for_their_text() {
        assert_eq!(settings(("body", 4096.into())).unwrap().body, 4096);
        assert_eq!(settings(("timeout", 0.into())).unwrap().timeout, Duration::ZERO);
        let problem = settings(("timeout", 5.into())).unwrap_err();
        assert!(problem.contains("`5` is not a duration"), "{problem}");
    }

    #[test]
    fn what_is_no_scalar_gets_a_clear_word() {
        for value in [serde_json::json!([]), serde_json::json!({}), 1.5.into(), (-1).into()] {
            for name in ["timeout", "dedupe", "body", "header"] {
                let problem = settings((name, value.clone())).unwrap_err();
                assert!(problem.contains("a text or a whole number"), "{name}: {problem}");
            }
        }
        assert!(settings(("method", "P OST".into())).unwrap_err().contains("not an HTTP method"));
    }
}
