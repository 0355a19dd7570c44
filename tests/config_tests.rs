//! The tests within configurations: those of every route that we ship, and the verb that plays
//! them.

use std::path::Path;

use serde_json::Value;
use tidegate_tests::gateway::binary;
use tokio::process::Command;

use crate::command_line::configurations;

async fn test(path: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let mut test = Command::new(binary());
    test.arg("test").arg("-c").arg(path).args(more);
    // What is set outside must not matter.
    test.env("TIDEGATE__QUEUE__MAX_SIZE", "nonsense").env("SLACK_BOT_TOKEN", "xoxb-of-somebody");
    let output = test.output().await.expect("the binary");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn every_route_that_we_ship_has_tests_and_they_pass() {
    let mut count = 0;
    for path in configurations() {
        let (code, told, said) = test(&path, &["--require-tests"]).await;
        assert_eq!(code, Some(0), "{}:\n{told}\n{said}", path.display());
        count += told.lines().filter(|line| line.starts_with("ok ")).count();
    }
    assert!(count >= 60, "{count} tests of twenty-odd routes");
}

#[tokio::test]
async fn the_page_about_testing_shows_a_test_that_passes() {
    let of = |name: &str| configurations().into_iter().find(|path| path.ends_with(name));
    let quickstart = of("quickstart.yaml").expect("the quickstart");
    let page = quickstart.with_file_name("TESTING.md");
    let page = std::fs::read_to_string(page).expect("config/TESTING.md");
    let shown = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("b.yaml");
    std::fs::write(&file, shown.expect("a block of YAML")).expect("writable");
    let file = file.display().to_string();
    let (code, told, said) = test(&quickstart, &["-c", &file, "an API that is down"]).await;
    assert_eq!(code, Some(0), "{told}{said}");
    assert!(told.contains("ok      an API that is down is tried again  "), "{told}");
}

#[tokio::test]
async fn what_differs_is_shown_and_the_exit_code_tells() {
    let quickstart = configurations().into_iter().find(|path| path.ends_with("quickstart.yaml"));
    let yaml = std::fs::read_to_string(quickstart.expect("the quickstart")).expect("text");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.yaml");
    let changed = yaml.replace("(.data.total | floor)", "(.data.total | ceil)");
    assert_ne!(changed, yaml);
    std::fs::write(&file, changed).expect("writable");
    let (code, told, _) = test(&file, &[]).await;
    assert_eq!(code, Some(1), "{told}");
    for part in
        ["FAILED  a confirmed order", "      -   \"points\": 12,\n      +   \"points\": 13,"]
    {
        assert!(told.contains(part), "no `{part}` in:\n{told}");
    }
    assert!(told.ends_with("3 passed, 1 failed\n"), "{told}");

    let (code, told, _) = test(&file, &["filtered", "--json"]).await;
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!((code, &told["passed"], &told["failed"]), (Some(0), &1.into(), &0.into()));
    let (code, _, said) = test(&file, &["no such test"]).await;
    assert_eq!((code, said.contains("no such test")), (Some(1), true), "{said}");

    std::fs::write(&file, yaml.replace("route: award-points", "route: award-point")).expect("ok");
    let (code, _, said) = test(&file, &[]).await;
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("there is no route `award-point`; did you mean `award-points`?"));
    let (code, told, _) = test(&file, &["--json"]).await;
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!((code, &told["valid"]), (Some(78), &false.into()));
    assert_eq!(told["problems"].as_array().map(Vec::len), Some(4), "{told}");
}

#[tokio::test]
async fn a_stand_in_that_will_not_do_can_be_set_and_a_route_without_tests_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.yaml");
    let yaml = "\
upstreams:
  api: { url: 'https://api.example', timeout: '${API_TIMEOUT}', auth: { bearer: '${file:/no/t}' } }
routes:
  tested:
    from: { rabbitmq: { bind: [{ exchange: e, key: k }] } }
    to: { http: { upstream: api } }
  other:
    from: { rabbitmq: { bind: [{ exchange: e, key: k }] } }
    to: { http: { upstream: api } }
tests:
  one:
    route: tested
    given: { event: { type: k } }
    expect: { requests: [{ path: /, headers: { Authorization: Bearer test-no-t } }] }
";
    std::fs::write(&file, yaml).expect("writable");
    let (code, _, said) = test(&file, &[]).await;
    assert_eq!(code, Some(78), "{said}");
    for part in ["`test-API_TIMEOUT` is not a duration", "--set NAME=VALUE: /no/t, API_TIMEOUT"] {
        assert!(said.contains(part), "no `{part}` in:\n{said}");
    }
    let set = ["--set", "API_TIMEOUT=3s"];
    let (code, told, said) = test(&file, &set).await;
    assert_eq!(code, Some(0), "{told}{said}");
    assert!(told.contains("without tests: other\n"), "{told}");
    let (code, ..) = test(&file, &["--set", "API_TIMEOUT=3s", "--require-tests"]).await;
    assert_eq!(code, Some(1));
}
