//! Answers of third parties: what they ask for, in `Retry-After` and in the headers and bodies of
//! those who have a way of their own, and what is kept of them.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use hyper::Response;
use parking_lot::Mutex;
use serde_json::{Value, json, value::RawValue};
use tidegate_adapters::{
    AttemptResult, Call, Data, Delivery, DeliveryId, Event, Exchange, Failure, Gate, Health,
    Receipt, Request, Throttle, Timestamp, Verdict,
    expression::Input,
    http::{
        Api,
        caller::{
            Caller, HttpTarget,
            script::{Script, Sent},
        },
    },
    secret::Mask,
};
use tower::Service as _;
use url::Url;

use super::{NOW, Parts, envelopes, now};

/// No wait is heeded beyond this.
const MOST: Duration = Duration::from_secs(3600);

/// What is kept of an answer.
const KEPT_MAX: usize = 4 << 10;

/// The upstream's token; an answer may echo it.
const TOKEN: &str = "tok-5d0a9be4b1";

/// A route to a scripted upstream.
struct Scene {
    target: HttpTarget,
    api: Arc<Api>,
    next: Arc<Next>,
    /// Whether an `outcome` may overrule the status.
    overruled: bool,
}

/// The answer to the next request.
#[derive(Debug, Default)]
struct Next(Mutex<Option<Response<Bytes>>>);

impl Script for Next {
    fn answer(&self, _: Sent) -> Result<Response<Bytes>, AttemptResult> {
        self.0.lock().clone().ok_or(AttemptResult::Reset)
    }
}

#[derive(Debug)]
struct Open;

impl Gate for Open {
    fn pass(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn pass_again(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn waited(&self) -> Duration {
        Duration::ZERO
    }
}

/// As it is without further ado; and with expressions on the answer, and a reply.
static SCENES: LazyLock<[Scene; 2]> = LazyLock::new(|| {
    let plain = scene(json!({}), json!({}));
    let wait = r#".headers["x-ratelimit-reset"] // .headers["ratelimit-reset"] // .body.wait
        | tonumber"#;
    let outcome = r#"if .body.ok == true then "delivered" else .body.outcome end"#;
    let full = scene(json!({ "retry_after": wait }), json!({ "outcome": outcome }));
    [plain, Scene { target: full.target.with_reply(), overruled: true, ..full }]
});

fn scene(upstream: Value, route: Value) -> Scene {
    let mut api = json!({ "url": "http://api.example/v1", "auth": { "bearer": TOKEN } });
    merge(&mut api, upstream);
    let next = Arc::new(Next::default());
    let config = serde_json::from_value(api).expect("a sound upstream");
    let mask = Mask::default();
    mask.add(TOKEN);
    let api = Api::new(&config, 1, mask, now).expect("a sound upstream");
    let api = Arc::new(api.scripted(Arc::clone(&next) as Arc<dyn Script>));
    let target = target(route, &api).expect("a sound target");
    Scene { target, api, next, overruled: false }
}

/// A route with what is in `route` besides what it needs.
fn target(route: Value, api: &Arc<Api>) -> Option<HttpTarget> {
    let mut config = json!({
        "upstream": "u", "method": "POST", "success": ["2xx"], "retry_on": ["default"],
        "idempotency_header": "Idempotency-Key", "max_response": "64KiB",
    });
    merge(&mut config, route);
    let config = serde_json::from_value(config).ok()?;
    HttpTarget::new(&config, Arc::clone(api), MOST).ok()
}

/// Where a route with that path would send an event, if it can.
pub(super) fn url_of(path: &str, input: &Input) -> Option<Url> {
    let target = target(json!({ "path": path }), &SCENES[0].api)?;
    let request = target.prepare(&delivery(), 1, input);
    request.ok().map(|request| request.url)
}

fn merge(into: &mut Value, from: Value) {
    let Value::Object(from) = from else { return };
    from.into_iter().for_each(|(name, value)| into[name] = value);
}

/// An answer: `:status`, headers. Then the body.
///
/// # Panics
/// When it is read two ways, makes us wait for nothing or too long, or shows a secret.
pub fn answers(input: &[u8]) {
    let parts = Parts::of(input);
    let status = parts.text(":status").and_then(|status| status.parse().ok()).unwrap_or(503_u16);
    let Ok(mut answer) =
        Response::builder().status(status).body(Bytes::copy_from_slice(parts.rest))
    else {
        return;
    };
    *answer.headers_mut() = envelopes::headers(&parts);
    for scene in SCENES.iter() {
        *scene.next.0.lock() = Some(answer.clone());
        let result = attempt(scene);
        match &result {
            Ok(Receipt { exchange, response, .. }) => assert_kept(exchange, response.as_deref()),
            Err(failure) => assert_failure(failure, status, scene.overruled),
        }
        let delivered = (200..300).contains(&status);
        assert!(scene.overruled || delivered == result.is_ok(), "{status}: {result:?}");
        assert_eq!(said(&attempt(scene)), said(&result), "the same answer means the same");
    }
}

fn attempt(scene: &Scene) -> Result<Receipt, Failure> {
    let delivery = delivery();
    let input = Input::event(Arc::clone(&delivery.event));
    let request = scene.target.prepare(&delivery, 1, &input).expect("nothing to render");
    let request = Request::Http(Arc::new(request));
    let call = Call { delivery, attempt: 1, request, gate: Arc::new(Open) };
    // A body of which the status decides is read against the clock.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime without threads");
    runtime.block_on(Caller::new(Arc::clone(&scene.api)).call(call).boxed())
}

/// What follows from an answer.
type Said = (Option<AttemptResult>, Option<Verdict>, Health, Option<Throttle>);

fn said(result: &Result<Receipt, Failure>) -> Said {
    match result {
        Ok(receipt) => (Some(receipt.result), None, receipt.health, None),
        Err(f) => (f.result, Some(f.verdict), f.health, f.throttle),
    }
}

fn assert_failure(failure: &Failure, status: u16, overruled: bool) {
    let waits = [
        match failure.verdict {
            Verdict::Retry { after } => after,
            Verdict::Dead(_) => None,
        },
        failure.throttle.and_then(|throttle| throttle.after),
    ];
    for wait in waits.into_iter().flatten() {
        assert!(wait > Duration::ZERO && wait <= MOST, "{wait:?}");
    }
    let throttled = failure.throttle.is_some();
    assert!(!throttled || matches!(status, 429 | 503), "{status} throttles");
    assert!(throttled || status != 429, "429 throttles");
    assert_eq!(throttled, failure.health == Health::Silent);
    assert!(overruled || status != 404 || matches!(failure.verdict, Verdict::Dead(_)));
    assert!(!failure.detail.contains(TOKEN), "{}", failure.detail);
    assert_kept(&failure.exchange, failure.response.as_deref());
}

fn assert_kept(exchange: &Exchange, response: Option<&[u8]>) {
    for text in [&exchange.request, &exchange.response] {
        assert!(text.len() <= KEPT_MAX + 256, "{} bytes are kept", text.len());
        assert!(!text.contains(TOKEN), "{text}");
    }
    if let Some(response) = response {
        assert_eq!(super::find(response, TOKEN.as_bytes()), None);
        let parsed = serde_json::from_slice::<&RawValue>(response);
        parsed.expect("what a reply is given is JSON");
    }
}

fn delivery() -> Arc<Delivery> {
    static DELIVERY: LazyLock<Arc<Delivery>> = LazyLock::new(|| {
        let json = br#"{"id":"e-1","source":"/orders","type":"order.confirmed"}"#;
        let event = Event::decode(json, Bytes::from_static(b"{\"n\":7}")).expect("an event");
        assert!(matches!(event.data, Data::Json(_)));
        Arc::new(Delivery {
            id: DeliveryId(1),
            route: "r".into(),
            event: Arc::new(event),
            key: None,
            accepted_at: NOW,
            due_at: Timestamp(NOW.0),
            attempts: 0,
            tries: 0,
            first_attempt_at: None,
        })
    });
    Arc::clone(&DELIVERY)
}
