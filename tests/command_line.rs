//! The command line: exit codes, errors, and the demo.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tidegate_tests::{gateway::binary, product};
use tokio::{process::Command, time::timeout};

async fn run(arguments: &[&str]) -> std::process::Output {
    let output = Command::new(binary())
        .args(arguments)
        .env_remove("TIDEGATE_CONFIG")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    timeout(Duration::from_secs(60), output).await.expect("in time").expect("the binary")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn c1_a_wrong_configuration_exits_78_with_every_problem_and_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("wrong.yaml");
    let yaml = "\
upstreams:
  loyalty:
    url: http://127.0.0.1:1
    timeout: 10 seconds
routes:
  award-points:
    from: { rabbitmq: { bind: [{ exchange: orders, key: '#' }] } }
    to: { http: { upstream: loyality, boddy: . } }
  runaway:
    from: { rabbitmq: { queue: q } }
    when: 'def f: f; f'
    to: { http: { upstream: loyalty, body: 'repeat(1)' } }
";
    std::fs::write(&path, yaml).expect("writable");
    let file = path.display().to_string();
    for verb in ["check", "run"] {
        let output = run(&[verb, "-c", &file]).await;
        assert_eq!(output.status.code(), Some(78), "{verb}");
        let said = text(&output.stderr);
        for part in [
            &format!("{file}:4:"),
            "upstreams.loyalty.timeout",
            "`10 seconds` is not a duration",
            &format!("{file}:8:"),
            "routes.award-points.to.http.upstream",
            "loyalty",
            "boddy",
            "body",
            &format!("{file}:11:"),
            "routes.runaway.when",
            &format!("{file}:12:"),
            "repeat",
        ] {
            assert!(said.contains(part), "{verb}: no `{part}` in:\n{said}");
        }
    }
}

#[tokio::test]
async fn what_later_versions_bring_is_refused_not_ignored() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("later.yaml");
    let yaml = "\
tests: []
upstreams: { a: { url: 'http://127.0.0.1:1' } }
routes:
  hooks:
    from: { command: { path: /hooks } }
    to: { view: { name: x } }
";
    std::fs::write(&path, yaml).expect("writable");
    let output = run(&["check", "-c", &path.display().to_string()]).await;
    assert_eq!(output.status.code(), Some(78));
    let said = text(&output.stderr);
    for part in ["tests", "routes.hooks.from.command", "routes.hooks.to.view", "not yet"] {
        assert!(said.contains(part), "no `{part}` in:\n{said}");
    }
}

#[tokio::test]
async fn wrong_words_exit_2() {
    for arguments in [&["rum"][..], &["run"], &["demo", "--twice"], &["deliveries", "replay"]] {
        let output = run(arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?} says why");
    }
}

/// Everything under `config/` that somebody may copy: a file by itself, a folder as one whole.
/// Those of products are each complete by themselves.
pub(crate) fn configurations() -> Vec<PathBuf> {
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).expect("a folder that we ship");
        entries.map(|entry| entry.expect("an entry").path()).collect()
    };
    let products = product::folder();
    let config = products.parent().expect("config/products lies in config");
    let whole = |path: &PathBuf| path.is_dir() || path.extension().is_some_and(|e| e == "yaml");
    let mut found = entries(config);
    found.retain(|path| whole(path) && !path.ends_with("products"));
    found.extend(entries(&products));
    found
}

#[tokio::test]
async fn the_configurations_we_ship_are_valid() {
    let found = configurations();
    assert!(found.len() >= 10, "quickstart, Plant-Based Pizza, eight products: {found:?}");
    for path in found {
        let content =
            if path.is_file() { std::fs::read_to_string(&path) } else { Ok(String::new()) };
        let variables = product::required(&content.expect("readable")).into_iter().map(|name| {
            let value = if name.ends_with("_URL") { "https://api.example" } else { "canary-77" };
            (name, value)
        });
        let mut check = Command::new(binary());
        check.arg("check").arg("-c").arg(&path).env_clear().envs(variables);
        let output = check.output().await.expect("the binary");
        assert!(output.status.success(), "{}: {}", path.display(), text(&output.stderr));
    }
}

#[tokio::test]
async fn the_demo_tells_its_story_and_every_order_arrives() {
    let output = run(&["demo", "--once"]).await;
    let (told, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{told}\n{said}");
    for part in ["Its breaker opens", "the loyalty SaaS is back", "each exactly once"] {
        assert!(told.contains(part), "no `{part}` in:\n{told}");
    }
}
