//! Queue files that are large from the start, written through the queue itself.

use std::{ops::Range, path::Path, sync::Arc, time::Duration};

use futures_util::{
    future::{join, try_join_all},
    stream::{FuturesOrdered, StreamExt as _},
};
use tidegate::queue::{
    Append, AttemptRecord, Bounds, Content, Outcome, Queue as _, RouteSettings, Settlement, Space,
    sqlite::{Options, SqliteQueue},
};
use tidegate_adapters::{AttemptResult, Data, Delivery, Event, Exchange, Timestamp};

/// Deliveries of one append, and appends under way at once: the writer never waits for one.
const BATCH: u64 = 2000;
const AT_ONCE: usize = 4;

/// Puts what `append` makes of `numbers` into the queue at `path`, made when missing, as the
/// deliveries of `route`, which nobody delivers.
pub(crate) async fn pending(
    path: &Path,
    route: &str,
    numbers: Range<u64>,
    append: impl Fn(u64) -> Append,
) {
    let (queue, route) = open(path, 100 << 30, route).await;
    let mut under_way = FuturesOrdered::new();
    for first in numbers.clone().step_by(BATCH as usize) {
        let batch = (first..numbers.end.min(first + BATCH)).map(&append).collect();
        under_way.push_back(queue.append(&route, batch, Space::Exempt));
        if under_way.len() == AT_ONCE {
            under_way.next().await.expect("some are under way").expect("taken");
        }
    }
    while let Some(appended) = under_way.next().await {
        appended.expect("taken");
    }
    close(queue, path).await;
}

/// Fills the history of the queue at `path`, of `max_size` bytes, with what `route` has delivered,
/// until it is at its cap. Answers how many deliveries it holds.
pub(crate) async fn history(path: &Path, max_size: u64, route: &str) -> u64 {
    let (queue, route) = open(path, max_size, route).await;
    let mut first = 0;
    while queue.pruned().is_empty() {
        let batch = (first..first + BATCH).map(|n| plain(&format!("old-{n:08}"), None)).collect();
        let appended = queue.append(&route, batch, Space::Exempt);
        let (appended, ()) = join(appended, settle(&queue, &route)).await;
        appended.expect("taken");
        first += BATCH;
    }
    settle(&queue, &route).await;
    let held = queue.routes().iter().map(|route| route.counts.delivered).sum();
    close(queue, path).await;
    held
}

/// Delivers all there is.
async fn settle(queue: &SqliteQueue, route: &Arc<str>) {
    let page = queue.page(route, now(), 2 * BATCH as usize, std::collections::HashSet::new());
    let due = page.await.expect("readable").due;
    let settled = due.into_iter().map(|delivery| {
        assert!(queue.claim(delivery.id), "nobody else takes it");
        queue.settle(delivered(delivery))
    });
    try_join_all(settled).await.expect("settled");
}

/// As a call to the API of the bench is settled.
fn delivered(delivery: Arc<Delivery>) -> Settlement {
    let body = String::from_utf8_lossy(&delivery.event.data_bytes()).into_owned();
    let request = format!(
        "POST /members/customer-17/points\naccept: application/json\n\
         content-type: application/json\nuser-agent: tidegate/0.1.0\n\
         idempotency-key: 5c1f5e63-3d4c-5b7e-9d3a-6f0d8c1f2a77\n\
         traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\n\n{body}"
    );
    let attempt = AttemptRecord {
        number: 1,
        at: delivery.accepted_at,
        duration: Duration::from_millis(1),
        result: AttemptResult::Success,
        detail: String::new(),
        exchange: Exchange {
            request,
            status: Some(200),
            response: "content-length: 2\n\n{}".to_owned(),
        },
    };
    Settlement {
        delivery,
        outcome: Outcome::Delivered,
        attempt: Some(attempt),
        reply: None,
        held: None,
    }
}

/// To be delivered: a small event.
pub(crate) fn small(n: u64, key: Option<Arc<str>>) -> Append {
    let data = &br#"{"customerId":"c","total":12.5}"#[..];
    let event = event(&format!("e-{n}"), "order.confirmed.v1", data);
    Append { content: Content::Pending(Arc::new(event)), key, dedupe: false }
}

/// To be delivered: an event with data like that of the bench's own.
pub(crate) fn plain(id: &str, key: Option<Arc<str>>) -> Append {
    let data = format!("{{\"customerId\":\"customer-17\",\"n\":12.5,\"x\":\"{:x>330}\"}}", "");
    let content = Content::Pending(Arc::new(event(id, "order.confirmed.v1", data)));
    Append { content, key, dedupe: false }
}

/// An event with that JSON.
pub(crate) fn event(id: &str, kind: &str, data: impl Into<bytes::Bytes>) -> Event {
    Event {
        id: id.to_owned(),
        source: "/bench".to_owned(),
        kind: kind.to_owned(),
        subject: None,
        time: None,
        datacontenttype: None,
        dataschema: None,
        extensions: std::collections::BTreeMap::new(),
        traceparent: None,
        hops: 0,
        data: Data::Json(data.into()),
    }
}

async fn open(path: &Path, max_size: u64, route: &str) -> (SqliteQueue, Arc<str>) {
    let options = Options {
        path: path.to_owned(),
        bounds: Bounds {
            max_size,
            max_route_share: 1.0,
            keep_delivered: Duration::from_secs(86_400),
            keep_dead: Duration::from_secs(86_400),
        },
        observer: Arc::new(|_| {}),
        clock: Arc::new(now),
    };
    let queue = SqliteQueue::open(options).expect("a queue");
    let route: Arc<str> = route.into();
    let settings = RouteSettings { name: Arc::clone(&route), dedupe: None, hold: false };
    queue.configure(vec![settings]).await.expect("configured");
    (queue, route)
}

/// Closes it, and waits until the disk has it: it must not be written while others are measured.
async fn close(queue: SqliteQueue, path: &Path) {
    queue.close().await;
    std::fs::File::open(path).and_then(|file| file.sync_all()).expect("on the disk");
}

#[expect(clippy::disallowed_methods, reason = "the clock of what is filled")]
fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp(i64::try_from(since.map_or(0, |since| since.as_millis())).unwrap_or(i64::MAX))
}
