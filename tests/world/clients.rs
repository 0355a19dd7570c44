//! Providers' own client libraries, asked as a provider or a consumer would use them.

use std::{
    path::PathBuf,
    process::Stdio,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

use crate::amqp::Taken;

/// Seconds since 1970.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "a provider signs with the time of day")]
pub fn now_s() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    now.as_secs()
}

/// What `library` signs `body` with, now: the headers.
pub async fn sign(library: &str, secret: &str, id: &str, body: &str) -> Vec<(String, String)> {
    let question = json!({
        "do": "sign", "library": library, "secret": secret, "id": id, "body": body,
        "timestamp": now_s(),
    });
    let Value::Object(headers) = ask(&question).await else { panic!("no headers") };
    let text = |value: Value| value.as_str().expect("text").to_owned();
    headers.into_iter().map(|(name, value)| (name, text(value))).collect()
}

/// What `library` says to a signed request: "ok", or why not.
pub async fn verify(library: &str, secret: &str, headers: &Value, body: &str) -> String {
    let question = json!({
        "do": "verify", "library": library, "secret": secret, "headers": headers, "body": body,
    });
    ask(&question).await.as_str().expect("text").to_owned()
}

/// The CloudEvent that the CloudEvents SDK makes of a message: `{attributes, data}`.
pub async fn parse(message: &Taken, headers: &Value) -> Value {
    let content_type = message.properties.content_type().as_ref().map(ToString::to_string);
    ask(&json!({
        "do": "parse", "content_type": content_type, "headers": headers,
        "body": STANDARD.encode(&message.body),
    }))
    .await
}

/// What an OpenAPI validator finds wrong with `document`, and with `answers` held against it:
/// `[{path, method, status, content_type, body}]`.
pub async fn describe(document: &Value, answers: &Value) -> Vec<String> {
    let question = json!({ "do": "describe", "document": document, "answers": answers });
    let wrong = ask(&question).await;
    let wrong = wrong.as_array().expect("a list").iter();
    wrong.map(|one| one.as_str().expect("text").to_owned()).collect()
}

/// What a JSON Schema validator finds wrong with each of `values`, held against `schema`; it
/// panics where `schema` is none.
pub async fn validate(schema: &Value, values: &[Value]) -> Vec<Vec<String>> {
    let wrong = ask(&json!({ "do": "validate", "schema": schema, "values": values })).await;
    serde_json::from_value(wrong).expect("a list of lists of text")
}

/// The Python that the clients are installed for.
pub(crate) fn python() -> PathBuf {
    let python = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/clients/bin/python");
    assert!(python.is_file(), "the clients are not installed: run tests/install-clients.sh");
    python
}

/// A script beside them.
pub(crate) fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

async fn ask(question: &Value) -> Value {
    let mut child = Command::new(python())
        .arg(script("client.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("python");
    let mut stdin = child.stdin.take().expect("piped above");
    stdin.write_all(question.to_string().as_bytes()).await.expect("it reads");
    drop(stdin);
    let output = timeout(Duration::from_secs(60), child.wait_with_output());
    let output = output.await.expect("in time").expect("its output");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{question}\n{said}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}
