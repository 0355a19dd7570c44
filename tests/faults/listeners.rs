//! Who may speak to the listeners, what their answers give away, and what names may lead to.

use std::{collections::BTreeSet, path::Path, time::Duration};

use tidegate_tests::{
    Gateway, eventually,
    gateway::{binary, client},
};
use tokio::process::Command;

const IN_TIME: Duration = Duration::from_secs(60);
const KEY: &str = "canary-api-key-0123456789";
const TOKEN: &str = "canary-token-0123456789";

fn config(admin: &str) -> String {
    format!(
        "broker: {{ embedded: {{}} }}
admin: {{ {admin} }}
routes:
  hooks:
    from:
      webhook:
        path: /hooks
        verify: {{ api_key: {{ header: X-Key, keys: [{KEY}, second-key-0123456789] }} }}
        event: {{ type: t }}
    to: {{ rabbitmq: {{ exchange: hooks, on_unroutable: drop }} }}
"
    )
}

/// Guesses at `secret`: nothing of it, more and more of it, and more than it.
fn guesses(secret: &str) -> Vec<String> {
    let mut guesses: Vec<String> = (1..secret.len()).map(|end| secret[..end].to_owned()).collect();
    guesses.extend([format!("{secret}x"), secret.to_uppercase(), "x".repeat(secret.len())]);
    guesses.extend(["x".to_owned(), "x".repeat(5_000), format!("x{secret}")]);
    guesses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s7_a_wrong_guess_is_answered_alike_however_near_it_is() {
    let tokens = format!("tokens: {{ oncall: {{ token: {TOKEN}, role: operate }} }}");
    let mut gateway = Gateway::new(&config(&tokens));
    gateway.set("TIDEGATE_ADMIN_TOKEN", TOKEN);
    gateway.run().await;
    let hooks = format!("{}/hooks", gateway.webhooks().await);
    let admin = format!("{}/api/v1/routes", gateway.admin().await);
    let mut answers: [BTreeSet<String>; 2] = Default::default();
    let shown = async |request: reqwest::RequestBuilder| {
        let answer = request.send().await.expect("an answer");
        let mut headers = answer.headers().clone();
        headers.remove("date");
        format!("{} {headers:?} {}", answer.status(), answer.text().await.expect("a body"))
    };
    for guess in guesses(KEY) {
        answers[0].insert(shown(client().post(&hooks).header("X-Key", guess).body("{}")).await);
    }
    for guess in guesses(TOKEN) {
        answers[1].insert(shown(client().get(&admin).bearer_auth(guess)).await);
    }
    for answers in &answers {
        assert_eq!(answers.len(), 1, "they can be told apart: {answers:#?}");
        assert!(answers.iter().all(|answer| answer.starts_with("401")), "{answers:?}");
    }
    assert!(shown(client().post(&hooks).header("X-Key", KEY).body("{}")).await.starts_with("202"));
    assert!(shown(client().get(&admin).bearer_auth(TOKEN)).await.starts_with("200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s8_beyond_this_machine_the_admin_listener_wants_tokens_or_does_not_start() {
    for address in ["0.0.0.0:0", "[::]:0"] {
        let mut gateway = Gateway::new(&config(""));
        gateway.set("TIDEGATE__ADMIN__LISTEN", address);
        gateway.spawn();
        assert_eq!(gateway.exit().await.code(), Some(78), "{address}");
        eventually("it says why", IN_TIME, || async {
            gateway.log().contains("`admin.tokens` must have one").then_some(())
        })
        .await;
    }
    let tokens = format!("tokens: {{ oncall: {{ token: {TOKEN}, role: operate }} }}");
    let mut gateway = Gateway::new(&config(&tokens));
    gateway.set("TIDEGATE__ADMIN__LISTEN", "0.0.0.0:0");
    gateway.run().await;
    let base = gateway.admin().await.replace("0.0.0.0", "127.0.0.1");
    for (path, expected) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 401),
        ("/", 401),
        ("/openapi.json", 401),
        ("/api/v1/deliveries", 401),
        ("/api/v1/nothing", 401),
    ] {
        let answer = client().get(format!("{base}{path}")).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), expected, "{path}");
    }
    let purge = client().post(format!("{base}/api/v1/deliveries/discard"));
    let purge = purge.header("content-type", "application/json").body(r#"{"filter":{}}"#);
    assert_eq!(purge.send().await.expect("an answer").status().as_u16(), 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s9_no_name_leads_to_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gateway.yaml");
    let long = "a".repeat(64);
    for name in [
        "../x", "..", ".", "a/b", "/etc", "a\\b", "A", "a b", "a%2fb", "-a", "", "ä", "a\u{0}",
        &long,
    ] {
        let quoted = serde_json::to_string(name).expect("text");
        let yaml = config("").replace("  hooks:", &format!("  {quoted}:"));
        std::fs::write(&path, yaml).expect("writable");
        let check = Command::new(binary()).arg("check").arg("-c").arg(&path).output().await;
        let check = check.expect("the binary");
        assert_eq!(check.status.code(), Some(78), "{name}: {check:?}");
    }
    let gateway = Gateway::start(&config("")).await;
    let base = gateway.admin().await;
    let address = base.trim_start_matches("http://");
    for target in [
        "/api/v1/routes/../../../../etc/passwd",
        "/api/v1/routes/..%2f..%2f..%2fetc%2fpasswd",
        "/api/v1/routes/%2e%2e",
        "/api/v1/deliveries/../../gateway.yaml",
        "/api/v1/deliveries/..%5cgateway.yaml",
        "/../gateway.yaml",
        "/%2e%2e/queue/tidegate.db",
        "//etc/passwd",
        "/openapi.json/../../etc/passwd",
        "file:///etc/passwd",
    ] {
        let (status, body) = get(address, target).await;
        assert!(matches!(status, 400 | 404 | 421), "{target}: {status} {body}");
        for content in ["root:", "embedded", KEY, "SQLite format"] {
            assert!(!body.contains(content), "{target}: {body}");
        }
    }
    for name in ["../../healthz", "..", "hooks/../../upstreams", "%2e%2e"] {
        for verb in [["routes", "show"], ["routes", "pause"], ["deliveries", "show"]] {
            let output = gateway.verb(&[verb[0], verb[1], name]).await;
            assert!(!output.status.success(), "{verb:?} {name}: {output:?}");
        }
    }
    assert!(!gateway.log().contains("route paused"));
}

/// GETs `target` as it stands: libraries would tidy it up.
async fn get(address: &str, target: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
    let request = format!("GET {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer)
}

#[test]
fn s13_what_is_banned_is_not_built_in_and_all_comes_from_the_registry() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let read = |name: &str| std::fs::read_to_string(root.join(name)).expect("a file of ours");
    let (lock, deny) = (read("Cargo.lock"), read("deny.toml"));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = std::process::Command::new(cargo)
        .args(["tree", "--offline", "--locked", "-p", "tidegate", "-e", "normal,build"])
        .args(["--prefix", "none", "--no-dedupe", "--target", "x86_64-unknown-linux-gnu"])
        .current_dir(root)
        .output()
        .expect("cargo");
    let tree = String::from_utf8(tree.stdout).expect("text");
    let built: BTreeSet<&str> =
        tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(built.len() > 100 && built.contains("hyper"), "{tree}");
    let banned: Vec<&str> = deny
        .lines()
        .filter_map(|line| line.trim().strip_prefix("{ crate = \"")?.split('"').next())
        .collect();
    assert!(banned.len() > 3, "{banned:?}");
    // GHSA-3v94-mw7p-v465 and GHSA-q2qq-hmj6-3wpp are of a resolver that is not ours.
    let resolvers = ["hickory-resolver", "hickory-proto", "trust-dns-resolver"];
    for name in banned.into_iter().chain(resolvers) {
        assert!(!built.contains(name), "{name} is built in");
    }
    for source in lock.lines().filter_map(|line| line.strip_prefix("source = ")) {
        assert_eq!(source, "\"registry+https://github.com/rust-lang/crates.io-index\"");
    }
}
