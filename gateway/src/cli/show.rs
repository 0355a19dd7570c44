//! `tidegate deliveries show`: one delivery with its event and its attempts.

use std::{collections::BTreeMap, fmt::Write as _};

use base64::Engine as _;
use serde_json::{Value, value::RawValue};

use super::{
    client::{Admin, path_part},
    table::{clean, items, print, text},
};

/// What is shown of the delivery itself, where it is there.
const FACTS: [&str; 12] = [
    "id",
    "route",
    "upstream",
    "state",
    "reason",
    "detail",
    "key",
    "event_id",
    "type",
    "attempt_count",
    "accepted_at",
    "due_at",
];

/// Shows delivery `id`: for people, or as it comes for programs.
pub(super) async fn delivery(admin: &Admin, id: &str, json: bool) -> Result<(), String> {
    let path = format!("/api/v1/deliveries/{}", path_part(id));
    let delivery = admin.get_text(&path).await?;
    print(&if json { format!("{delivery}\n") } else { render(&delivery)? })
}

fn render(delivery: &str) -> Result<String, String> {
    // The event stays text: a parser would round its numbers.
    let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(delivery)
        .map_err(|error| format!("the answer is not a delivery: {error}"))?;
    let member = |name: &str| -> Value {
        let member = members.get(name).and_then(|raw| serde_json::from_str(raw.get()).ok());
        member.unwrap_or_default()
    };
    let mut shown = String::new();
    // Writing to a string cannot fail, here and below.
    for name in FACTS {
        let value = member(name);
        if !value.is_null() {
            let _ = writeln!(shown, "{name:<14} {}", text(&value));
        }
    }
    match members.get("event").map(|raw| raw.get()) {
        Some(event) if event != "null" => {
            let _ = writeln!(shown, "\nevent");
            lines(&mut shown, "  ", &indented(event));
        }
        _ => {
            let _ = writeln!(shown, "\nno event; it came with");
            lines(&mut shown, "  ", &format!("{:#}", member("about")));
            raw(&mut shown, member("raw_base64").as_str().unwrap_or_default());
        }
    }
    for one in items(&member("attempts")) {
        attempt(&mut shown, one);
    }
    Ok(shown)
}

fn attempt(shown: &mut String, attempt: &Value) {
    let took = attempt["duration_ms"].as_f64().unwrap_or_default();
    let (number, at, result) =
        (text(&attempt["number"]), text(&attempt["at"]), text(&attempt["result"]));
    let _ = write!(shown, "\nattempt {number} at {at}: {result} in {took:.1} ms");
    match attempt["detail"].as_str().filter(|detail| !detail.is_empty()) {
        Some(detail) => _ = writeln!(shown, ", {}", clean(detail)),
        None => shown.push('\n'),
    }
    lines(shown, "  > ", attempt["request"].as_str().unwrap_or_default());
    lines(shown, "  < ", attempt["response"].as_str().unwrap_or_default());
}

/// What came, as text where it is text.
fn raw(shown: &mut String, base64: &str) {
    let bytes = base64::engine::general_purpose::STANDARD.decode(base64).unwrap_or_default();
    match String::from_utf8(bytes) {
        Ok(text) => {
            let _ = writeln!(shown, "\nraw");
            lines(shown, "  ", &text);
        }
        Err(_) => {
            let _ = writeln!(shown, "\nraw (Base64)\n  {}", clean(base64));
        }
    }
}

fn lines(shown: &mut String, before: &str, text: &str) {
    for line in text.lines() {
        let _ = writeln!(shown, "{}", format!("{before}{}", clean(line)).trim_end());
    }
}

/// `json` over several lines. Its numbers keep their digits and its members their order.
fn indented(json: &str) -> String {
    let mut shown = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for c in json.chars() {
        if in_string {
            shown.push(c);
            in_string = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            continue;
        }
        let empty = shown.ends_with(['{', '[']);
        match c {
            ' ' | '\n' | '\r' | '\t' => continue,
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                if !empty {
                    new_line(&mut shown, depth);
                }
            }
            _ if empty => new_line(&mut shown, depth),
            _ => {}
        }
        shown.push(c);
        match c {
            '"' => in_string = true,
            '{' | '[' => depth += 1,
            ',' => new_line(&mut shown, depth),
            ':' => shown.push(' '),
            _ => {}
        }
    }
    shown
}

fn new_line(shown: &mut String, depth: usize) {
    shown.push('\n');
    shown.extend(std::iter::repeat_n("  ", depth));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_reads_from_what_it_is_to_what_was_tried() {
        let delivery = r#"{"id":"7","route":"r","state":"dead","reason":"rejected","key":null,
            "attempt_count":1,"detail":"status 410","event":{"id":"e","data":{"total":12.50}},
            "attempts":[{"number":1,"at":"2026-01-31T12:00:00Z","result":"4xx","duration_ms":1.25,
            "status":410,"detail":"status 410","request":"POST /x HTTP/1.1\nhost: a\n\n{}",
            "response":"HTTP/1.1 410 Gone"}]}"#;
        let expected = "\
id             7
route          r
state          dead
reason         rejected
detail         status 410
attempt_count  1

event
  {
    \"id\": \"e\",
    \"data\": {
      \"total\": 12.50
    }
  }

attempt 1 at 2026-01-31T12:00:00Z: 4xx in 1.2 ms, status 410
  > POST /x HTTP/1.1
  > host: a
  >
  > {}
  < HTTP/1.1 410 Gone
";
        assert_eq!(render(delivery).unwrap(), expected);
    }

    #[test]
    fn what_is_no_event_shows_what_came() {
        let text = r#"{"id":"7","event":null,"about":{"exchange":"orders"},
            "raw_base64":"e29vcHM=","attempts":[]}"#;
        let shown = render(text).unwrap();
        assert!(
            shown.contains("\"exchange\": \"orders\"") && shown.contains("raw\n  {oops\n"),
            "{shown}"
        );
        let shown = render(&text.replace("e29vcHM=", "/1s=")).unwrap();
        assert!(shown.contains("raw (Base64)\n  /1s=\n"), "{shown}");
    }

    #[test]
    fn nothing_that_came_from_outside_drives_the_terminal() {
        let evil = r#"\u001b[2J\u009b31m"#;
        let delivery = format!(
            r#"{{"id":"{evil}","key":"{evil}","detail":"{evil}","event":{{"id":"{}"}},
            "attempts":[{{"detail":"{evil}","request":"{evil}","response":"a\n{evil}"}}]}}"#,
            '\u{9b}'
        );
        let shown = render(&delivery).unwrap();
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
    }

    #[test]
    fn indenting_changes_nothing_but_space() {
        let json = r#"{"a":[],"b":{},"c":[1,-2.50e3,[null]],"d":"x,{\"}: [\\"}"#;
        let expected = r#"{
  "a": [],
  "b": {},
  "c": [
    1,
    -2.50e3,
    [
      null
    ]
  ],
  "d": "x,{\"}: [\\"
}"#;
        assert_eq!(indented(json), expected);
        assert_eq!(indented(expected), expected);
    }
}
