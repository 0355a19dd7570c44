use std::sync::atomic::{AtomicUsize, Ordering};

use tidegate_adapters::TraceContext;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::telemetry::span::{About, Kind};

fn span() -> Span {
    Span {
        about: Arc::new(About { name: "n".to_owned(), kind: Kind::Client, attributes: Vec::new() }),
        context: TraceContext::root(true),
        parent: None,
        start: 1,
        end: 2,
        attributes: Vec::new(),
        failed: false,
    }
}

/// An exporter to `url`, with room for so many spans, all of it taken.
fn exporter(url: &str, room: usize) -> (mpsc::Sender<Span>, Exporter) {
    let (sender, spans) = mpsc::channel(room);
    for _ in 0..room {
        sender.try_send(span()).unwrap();
    }
    let collector = Collector::new(&url.parse().unwrap()).unwrap();
    let (mask, metrics) = (Mask::default(), Metrics::empty());
    (
        sender,
        Exporter { spans, collector, instance: "i".into(), mask, metrics, told: 0, away: false },
    )
}

/// A collector over HTTP that gives these answers, one a connection, then always the last.
async fn answering(statuses: &'static [&'static str]) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 64 << 10];
            let _ = stream.read(&mut request).await;
            let n = count.fetch_add(1, Ordering::SeqCst).min(statuses.len() - 1);
            let answer = format!(
                "HTTP/1.1 {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
                statuses[n]
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, asked)
}

async fn until(done: impl Fn() -> bool) {
    while !done() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_batch_is_tried_again_until_it_is_taken() {
    let (url, asked) = answering(&["503 Service Unavailable", "200 OK"]).await;
    let (_sender, exporter) = exporter(&url, 3);
    let (metrics, stop) = (exporter.metrics.clone(), CancellationToken::new());
    let running = tokio::spawn(exporter.run(stop.clone()));
    until(|| metrics.spans_exported_total() == 3).await;
    assert_eq!((asked.load(Ordering::SeqCst), metrics.spans_dropped_total()), (2, 0));
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn what_is_refused_for_good_is_counted_and_not_sent_again() {
    let (url, asked) = answering(&["400 Bad Request", "200 OK"]).await;
    let (sender, exporter) = exporter(&url, 3);
    let (metrics, stop) = (exporter.metrics.clone(), CancellationToken::new());
    let running = tokio::spawn(exporter.run(stop.clone()));
    until(|| metrics.spans_dropped_total() == 3).await;
    sender.send(span()).await.unwrap();
    until(|| metrics.spans_exported_total() == 1).await;
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn what_is_left_at_the_end_is_sent() {
    let (url, asked) = answering(&["200 OK"]).await;
    let (_sender, exporter) = exporter(&url, BATCH + 1);
    let (metrics, stop) = (exporter.metrics.clone(), CancellationToken::new());
    stop.cancel();
    exporter.run(stop).await;
    assert_eq!(
        (metrics.spans_exported_total(), metrics.spans_dropped_total()),
        (BATCH as u64 + 1, 0)
    );
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_collector_that_never_answers_does_not_hold_up_the_end() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let (_sender, exporter) = exporter(&url, 7);
    let (metrics, stop) = (exporter.metrics.clone(), CancellationToken::new());
    let running = tokio::spawn(exporter.run(stop.clone()));
    let (_stream, _) = silent.accept().await.unwrap();
    let stopping = Instant::now();
    stop.cancel();
    running.await.unwrap();
    assert!(stopping.elapsed() < FLUSH.0 + Duration::from_secs(2), "{:?}", stopping.elapsed());
    assert_eq!(metrics.spans_dropped_total(), 7, "counted, not vanished");
}
