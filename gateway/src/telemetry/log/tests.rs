use std::sync::Arc;

use parking_lot::Mutex;

use super::*;

const SECRET: &str = "s3cr3t/with \"quotes\"";

type Lines = Arc<Mutex<Vec<String>>>;

/// A log that is kept, line by line.
fn collecting(level: LogLevel, format: LogFormat) -> (Dispatch, LogHandle, Lines) {
    let mask = Mask::default();
    mask.add(SECRET);
    let lines = Lines::default();
    let sink = Arc::clone(&lines);
    let sink = move |line: &[u8]| sink.lock().push(String::from_utf8(line.to_vec()).unwrap());
    let (dispatch, handle) = subscriber(&LogConfig { level, format }, mask, sink);
    (dispatch, handle, lines)
}

/// What `log` writes at `level`, line by line.
fn logged(level: LogLevel, format: LogFormat, log: impl FnOnce()) -> Vec<String> {
    let (dispatch, _, lines) = collecting(level, format);
    tracing::dispatcher::with_default(&dispatch, log);
    lines.lock().clone()
}

#[test]
fn s5_no_secret_leaves_in_a_message_a_field_or_a_debugged_value() {
    for format in [LogFormat::Text, LogFormat::Json] {
        let lines = logged(LogLevel::Trace, format, || {
            tracing::info!(plain = SECRET, shown = %SECRET, debugged = ?SECRET, "x {SECRET} y");
        });
        let all = lines.concat();
        assert_eq!(lines.len(), 1, "{all}");
        assert!(all.contains("***") && !all.contains("s3cr3t"), "{all}");
    }
}

#[test]
fn json_lines_are_json_and_say_when_in_utc() {
    let lines = logged(LogLevel::Info, LogFormat::Json, || tracing::info!(route = "a", "hello"));
    let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(line["fields"]["message"], "hello");
    assert_eq!(line["fields"]["route"], "a");
    let at = line["timestamp"].as_str().unwrap();
    let rfc3339 = &time::format_description::well_known::Rfc3339;
    assert!(time::OffsetDateTime::parse(at, rfc3339).is_ok() && at.ends_with('Z'), "{at}");
}

#[test]
fn dependencies_log_at_warn_at_most_whatever_our_level() {
    let lines = logged(LogLevel::Trace, LogFormat::Text, || {
        tracing::trace!(target: "tidegate::queue", "ours");
        tracing::trace!(target: "tidegate_adapters::http", "ours too");
        tracing::info!(target: "hyper::proto", "theirs");
        tracing::warn!(target: "hyper::proto", "their warning");
    });
    let all = lines.concat();
    assert_eq!(lines.len(), 3, "{all}");
    assert!(all.contains("ours too") && all.contains("their warning"), "{all}");
}

#[test]
fn our_own_level_holds_for_dependencies_too() {
    let lines = logged(LogLevel::Error, LogFormat::Text, || {
        tracing::warn!(target: "hyper::proto", "their warning");
        tracing::warn!(target: "tidegate::queue", "our warning");
        tracing::error!(target: "tidegate::queue", "our error");
    });
    assert_eq!(lines.len(), 1, "{lines:?}");
}

#[test]
fn s10_what_comes_from_outside_cannot_forge_a_line() {
    let lines = logged(LogLevel::Info, LogFormat::Text, || {
        tracing::info!(why = %"no\n2026-01-01T00:00:00Z  INFO forged\u{1b}[2J", "refused");
    });
    assert_eq!(lines.len(), 1);
    assert!(lines[0].ends_with('\n') && !lines[0].trim_end().contains(char::is_control));
}

#[test]
fn the_level_follows_what_it_is_set_to() {
    let (dispatch, handle, lines) = collecting(LogLevel::Warn, LogFormat::Text);
    tracing::dispatcher::with_default(&dispatch, || {
        for (level, n) in [(None, 0), (Some(LogLevel::Debug), 1), (Some(LogLevel::Error), 2)] {
            if let Some(level) = level {
                handle.set_level(level);
            }
            tracing::debug!(target: "tidegate::queue", n, "what happens");
        }
        handle.set_level(LogLevel::Trace);
        tracing::info!(target: "hyper::proto", "still not ours");
    });
    let lines = lines.lock().clone();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("n=1"), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_damped_and_what_was_left_out_is_told_to_the_last() {
    let (dispatch, handle, lines) = collecting(LogLevel::Debug, LogFormat::Json);
    let _log = tracing::dispatcher::set_default(&dispatch);
    let stop = CancellationToken::new();
    let telling = tokio::spawn(handle.run(stop.clone()));
    let count = |text: &str| lines.lock().iter().filter(|line| line.contains(text)).count();
    let flood = |route: &str, n: u64| {
        for _ in 0..n {
            tracing::warn!(route, upstream = %"api", "delivery is dead");
            tracing::debug!(route, "every one of these");
        }
    };
    flood("a", 500);
    flood("b", 11);
    assert_eq!(count("\"route\":\"a\",\"upstream"), 10, "the burst");
    assert_eq!(count("\"route\":\"b\",\"upstream"), 10, "another route has a burst of its own");
    assert_eq!(count("every one of these"), 511, "debug is not damped");
    tokio::time::sleep(std::time::Duration::from_secs(11)).await;
    assert_eq!((count("\"suppressed\":490"), count("\"suppressed\":1")), (1, 1));
    assert_eq!(count("left out"), 2);
    assert_eq!(count("\"line\":\"delivery is dead\""), 2);
    flood("a", 500);
    assert_eq!(count("delivery is dead") - 2, 10 + 10 + 1, "one more in ten seconds");
    stop.cancel();
    telling.await.unwrap();
    assert_eq!(count("\"suppressed\":499"), 1, "the last of a flood is told, too");
}

#[tokio::test(start_paused = true)]
async fn a_line_that_comes_now_and_then_is_never_left_out() {
    let (dispatch, handle, lines) = collecting(LogLevel::Info, LogFormat::Json);
    let _log = tracing::dispatcher::set_default(&dispatch);
    let stop = CancellationToken::new();
    let telling = tokio::spawn(handle.run(stop.clone()));
    for _ in 0..100 {
        tracing::info!(upstream = "api", "breaker closed");
        tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    }
    stop.cancel();
    telling.await.unwrap();
    assert_eq!(lines.lock().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn more_routes_than_are_kept_apart_cost_no_memory_and_are_damped_together() {
    let (dispatch, handle, lines) = collecting(LogLevel::Info, LogFormat::Json);
    let _log = tracing::dispatcher::set_default(&dispatch);
    for n in 0..5000 {
        for _ in 0..11 {
            tracing::warn!(route = format!("r-{n}"), "delivery is dead");
        }
    }
    let told = lines.lock().len();
    assert!((10_240..=10_260).contains(&told), "{told}");
    let stop = CancellationToken::new();
    stop.cancel();
    handle.run(stop).await;
    let lines = lines.lock();
    let suppressed = lines[told..].iter().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["fields"]["suppressed"].as_u64().unwrap()
    });
    assert_eq!(suppressed.sum::<u64>(), 55_000 - told as u64, "every single one is told");
}
