//! A collector of traces: OpenTelemetry's own protobuf behind gRPC's own server.

use std::{process::Stdio, sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::clients;

/// A running collector; ends when dropped.
pub struct Collector {
    url: String,
    spans: Arc<Mutex<Vec<Value>>>,
    _process: Child,
}

impl Collector {
    /// One on a port of its own.
    pub async fn start() -> Self {
        let mut process = Command::new(clients::python())
            .arg(clients::script("collector.py"))
            // A pipe that closes with us tells it to end.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python");
        let mut lines = BufReader::new(process.stdout.take().expect("piped above")).lines();
        let first = timeout(Duration::from_secs(60), lines.next_line()).await.expect("in time");
        let first = first.expect("its output").expect("it says where it listens");
        let said: Value = serde_json::from_str(&first).expect("JSON");
        let url = said["listening"].as_str().expect("an address").to_owned();
        let spans: Arc<Mutex<Vec<Value>>> = Arc::default();
        let sink = Arc::clone(&spans);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                sink.lock().push(serde_json::from_str(&line).expect("JSON"));
            }
        });
        Self { url, spans, _process: process }
    }

    /// Where it listens, for `telemetry.otlp`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The spans it got, each as `{resource, trace, span, parent, name, kind, attributes, …}`.
    #[must_use]
    pub fn spans(&self) -> Vec<Value> {
        self.spans.lock().clone()
    }
}
