//! Timestamps: what a request says when it was signed, and whether that is now.
//!
//! A signature is right for ever; its timestamp is what keeps a captured request from being sent
//! again later. Within the tolerance it can be, and is then told by its id.

use std::time::Duration;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::Unverified;
use crate::{Timestamp, http::ConfigError};

/// Seconds and milliseconds are told apart by size: 10^11 s is in the year 5138, 10^11 ms was in
/// 1973.
const MILLISECONDS_FROM: i64 = 100_000_000_000;

/// Reads seconds or milliseconds since the Unix epoch, or RFC 3339; `header` is where it came in.
///
/// # Errors
/// It is none of them.
pub(super) fn read(text: &str, header: &str) -> Result<Timestamp, Unverified> {
    let timestamp = match text.starts_with(|first: char| first.is_ascii_digit() || first == '-') {
        false => None,
        true => number(text).map(|number| match number.saturating_abs() < MILLISECONDS_FROM {
            true => number * 1000,
            false => number,
        }),
    };
    timestamp.or_else(|| rfc3339(text)).map(Timestamp).ok_or_else(|| {
        Unverified(format!(
            "`{header}` is no timestamp: seconds or milliseconds since 1970, or RFC 3339, are due"
        ))
    })
}

/// Reads seconds since the Unix epoch, and nothing else; `header` is where they came in.
///
/// # Errors
/// It is no number of seconds.
pub(super) fn read_seconds(text: &str, header: &str) -> Result<Timestamp, Unverified> {
    number(text).and_then(|seconds| seconds.checked_mul(1000)).map(Timestamp).ok_or_else(|| {
        Unverified(format!("`{header}` has no timestamp: seconds since 1970 are due"))
    })
}

/// Whether `sent` is at most `tolerance` from `now`, either way.
///
/// # Errors
/// It is further away.
pub(super) fn check(
    sent: Timestamp,
    now: Timestamp,
    tolerance: Duration,
) -> Result<(), Unverified> {
    let (past, ahead) = (now.since(sent), sent.since(now));
    let problem = |off: Duration, way: &str| {
        let (off, allowed) = (off.as_secs_f64(), tolerance.as_secs_f64());
        Unverified(format!("the timestamp is {off} s {way}; {allowed} s are allowed"))
    };
    if past > tolerance {
        return Err(problem(past, "old"));
    }
    if ahead > tolerance {
        return Err(problem(ahead, "ahead of the receiver's clock"));
    }
    Ok(())
}

/// Refuses a tolerance that no request can keep; it stands at `key` of the configuration.
///
/// # Errors
/// It is zero.
pub(super) fn tolerance(key: &str, tolerance: Duration) -> Result<Duration, ConfigError> {
    if tolerance.is_zero() {
        let problem = "is zero, and no request arrives when it was signed: write 5m";
        return Err(ConfigError::new(key, problem));
    }
    Ok(tolerance)
}

/// Decimal digits, at most one minus sign before them; `None` where `i64` ends.
fn number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| text.parse().ok()).flatten()
}

fn rfc3339(text: &str) -> Option<i64> {
    let nanoseconds = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos();
    i64::try_from(nanoseconds.div_euclid(1_000_000)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_milliseconds_and_rfc_3339_are_the_same_moment() {
        let moment = Timestamp(1_614_265_330_000);
        for text in
            ["1614265330", "1614265330000", "2021-02-25T15:02:10Z", "2021-02-25T16:02:10.000+01:00"]
        {
            assert_eq!(read(text, "x").as_ref(), Ok(&moment), "{text}");
        }
        assert_eq!(read("-5", "x"), Ok(Timestamp(-5000)));
        assert_eq!(read_seconds("1614265330", "x"), Ok(moment));
    }

    #[test]
    fn what_is_no_timestamp_is_refused_and_nothing_overflows() {
        let huge = "9".repeat(10_000);
        for text in ["", "-", "--5", "+5", "5 ", "1e9", "0x5", "today", "5.5", "٣", &huge] {
            let error = read(text, "x-time").unwrap_err();
            assert!(error.0.starts_with("`x-time` is no timestamp"), "{text}: {error}");
            assert!(read_seconds(text, "x").is_err(), "{text}");
        }
        assert!(read_seconds("2021-02-25T15:02:10Z", "x").is_err());
        assert!(read_seconds(&i64::MAX.to_string(), "x").is_err());
        let five_minutes = Duration::from_secs(300);
        for extreme in [i64::MIN, i64::MAX] {
            let sent = read(&extreme.to_string(), "x").unwrap();
            for now in [0, i64::MIN, i64::MAX].map(Timestamp).into_iter().filter(|now| *now != sent)
            {
                assert!(check(sent, now, five_minutes).is_err());
            }
        }
    }

    #[test]
    fn the_tolerance_holds_both_ways_to_the_millisecond() {
        let (now, tolerance) = (Timestamp(1_000_000), Duration::from_secs(300));
        assert_eq!(check(Timestamp(700_000), now, tolerance), Ok(()));
        assert_eq!(check(Timestamp(1_300_000), now, tolerance), Ok(()));
        let old = check(Timestamp(699_999), now, tolerance).unwrap_err().to_string();
        assert_eq!(old, "the timestamp is 300.001 s old; 300 s are allowed");
        let ahead = check(Timestamp(1_900_000), now, tolerance).unwrap_err().to_string();
        assert_eq!(
            ahead,
            "the timestamp is 900 s ahead of the receiver's clock; 300 s are allowed"
        );
    }
}
