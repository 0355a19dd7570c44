//! When to come back: `Retry-After` (RFC 9110 §10.2.3), in both its forms, as it is found in the
//! wild: fractions, exponents, absurd numbers, several headers.

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, header};

use crate::Timestamp;

/// How long the answer asks to wait: the longest of its `Retry-After` headers that say anything.
/// What is not positive says nothing, so that no answer can cause a burst; what is absurdly long
/// saturates. Dates count from the answer's own `Date`, else from `now`, since clocks differ.
pub(crate) fn of_headers(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let values = headers.get_all(header::RETRY_AFTER).iter();
    values.filter_map(|value| of_value(value.to_str().ok()?.trim(), headers, now)).max()
}

/// A number of seconds, if it is one that can be waited for.
pub(crate) fn of_seconds(seconds: f64) -> Option<Duration> {
    // Written so that NaN fails.
    (seconds > 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

fn of_value(value: &str, headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    // f64's own parser takes `inf`, `nan` and signs too; those are no numbers of seconds.
    let numeric = value.starts_with(|c: char| c.is_ascii_digit())
        && value.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+'));
    if numeric {
        return of_seconds(value.parse().ok()?);
    }
    let at = httpdate::parse_http_date(value).ok()?;
    let date = headers.get(header::DATE).and_then(|date| date.to_str().ok());
    let base = date
        .and_then(|date| httpdate::parse_http_date(date).ok())
        .unwrap_or_else(|| UNIX_EPOCH + Duration::from_millis(u64::try_from(now.0).unwrap_or(0)));
    at.duration_since(base).ok().filter(|wait| !wait.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110 §5.6.7.
    const NOW: Timestamp = Timestamp(784_111_777_000);

    fn wait(headers: &[(&'static str, &str)]) -> Option<Duration> {
        let headers = headers.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), value.parse::<http::HeaderValue>().unwrap())
        });
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value);
        }
        of_headers(&map, NOW)
    }

    #[test]
    fn u10_seconds_are_read_and_nonsense_says_nothing() {
        let seconds = Duration::from_secs;
        let cases = [
            ("120", Some(seconds(120))),
            (" 7 ", Some(seconds(7))),
            ("1.5", Some(Duration::from_millis(1500))),
            ("9223372037", Some(seconds(9_223_372_037))),
            ("1e30", Some(Duration::MAX)),
            ("99999999999999999999999999", Some(Duration::MAX)),
            ("1e999", Some(Duration::MAX)),
            ("0", None),
            ("0.0", None),
            ("-1", None),
            ("+5", None),
            ("NaN", None),
            ("inf", None),
            ("x", None),
            ("", None),
            ("1e", None),
            ("1, 2", None),
            ("0x10", None),
        ];
        for (value, expected) in cases {
            assert_eq!(wait(&[("retry-after", value)]), expected, "`{value}`");
        }
    }

    #[test]
    fn u9_dates_count_from_the_answers_own_clock() {
        let later = "Sun, 06 Nov 1994 08:50:37 GMT";
        let minute = Some(Duration::from_secs(60));
        assert_eq!(wait(&[("retry-after", later)]), minute);
        let skewed = ("date", "Sun, 06 Nov 1994 08:50:07 GMT");
        assert_eq!(wait(&[("retry-after", later), skewed]), Some(Duration::from_secs(30)));
        assert_eq!(wait(&[("retry-after", later), ("date", "yesterday")]), minute);
        // RFC 850 and asctime forms are to be accepted too.
        assert_eq!(wait(&[("retry-after", "Sunday, 06-Nov-94 08:50:37 GMT")]), minute);
        assert_eq!(wait(&[("retry-after", "Sun Nov  6 08:50:37 1994")]), minute);
    }

    #[test]
    fn u9_a_date_that_has_passed_says_nothing() {
        assert_eq!(wait(&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")]), None);
        assert_eq!(wait(&[("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT")]), None);
    }

    proptest::proptest! {
        #[test]
        fn u9_u10_no_header_panics_or_causes_a_burst(value in "[ -~]{0,30}|[0-9.eE+-]{0,12}") {
            let wait = wait(&[("retry-after", &value), ("date", &value)]);
            proptest::prop_assert!(wait.is_none_or(|wait| !wait.is_zero()));
        }
    }

    #[test]
    fn u10_of_several_headers_the_longest_wait_holds() {
        let two = [("retry-after", "5"), ("retry-after", "nonsense"), ("retry-after", "30")];
        assert_eq!(wait(&two), Some(Duration::from_secs(30)));
        assert_eq!(wait(&[]), None);
    }
}
