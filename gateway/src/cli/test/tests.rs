use std::time::Duration;

use super::*;

fn played(name: &str, differences: Vec<Difference>) -> Played {
    let place = Place::File { file: "a.yaml".into(), line: 7, column: 3 };
    let notes = match differences.is_empty() {
        true => Vec::new(),
        false => vec!["5xx: answered 503".to_owned()],
    };
    let took = Duration::from_millis(2);
    Played {
        name: name.to_owned(),
        route: "r".into(),
        place: Some(place),
        took,
        differences,
        notes,
    }
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

fn outcome() -> Outcome {
    let body = Difference {
        what: "requests",
        expected: lines("POST /members/c7/points\n{\n  \"points\": 13\n}"),
        got: lines("POST /members/c7/points\n{\n  \"points\": 12\n}"),
    };
    let waits = Difference { what: "waits", expected: lines("1s"), got: lines("1s\n2s") };
    let differences = vec![body, waits];
    let played = vec![played("points", Vec::new()), played("too many", differences)];
    Outcome { played, untested: vec!["other".to_owned()], strict: false }
}

#[test]
fn a_failure_shows_what_differs_and_no_more_around_it_than_helps() {
    let expected = "\
ok      points  2 ms
FAILED  too many  2 ms
    a.yaml:7:3  route r
    requests: - expected + got
        POST /members/c7/points
        {
      -   \"points\": 13
      +   \"points\": 12
        }
    waits: - expected + got
        1s
      + 2s
    note: 5xx: answered 503
without tests: other
1 passed, 1 failed
";
    assert_eq!(outcome().to_text(false), expected);
    assert!(outcome().to_text(true).contains("\x1b[31m-   \"points\": 13\x1b[0m\n"));
    assert!(!outcome().passed());
}

#[test]
fn programs_are_told_the_same() {
    let json = outcome().to_json();
    assert_eq!((&json["passed"], &json["failed"]), (&json!(1), &json!(1)));
    let failed = &json["tests"][1];
    assert_eq!(
        (&failed["ok"], &failed["file"], &failed["line"]),
        (&json!(false), &json!("a.yaml"), &json!(7))
    );
    assert_eq!(failed["differences"][1]["got"], "1s\n2s");
    assert_eq!(json["untested"], json!(["other"]));
}

#[test]
fn routes_without_tests_are_a_failure_only_where_that_is_asked_for() {
    let of = |strict| Outcome {
        played: vec![played("points", Vec::new())],
        untested: vec!["other".to_owned()],
        strict,
    };
    assert!(of(false).passed());
    assert!(!of(true).passed());
}
