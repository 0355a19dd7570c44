use std::collections::BTreeMap;

use tidegate_adapters::{Data, DeliveryId, Invalid, Timestamp};

use super::*;
use crate::telemetry::recorder::WAITING_MAX;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn event(id: &str, trace: Option<&str>) -> Event {
    Event {
        id: id.to_owned(),
        source: "/orders".to_owned(),
        kind: "order.confirmed".to_owned(),
        subject: None,
        time: None,
        datacontenttype: None,
        dataschema: None,
        extensions: BTreeMap::new(),
        traceparent: trace.and_then(TraceContext::parse),
        hops: 0,
        data: Data::Absent,
    }
}

fn arrival(id: &str, trace: Option<&str>) -> Arrival {
    Arrival { event: Ok(event(id, trace)), own_id: true }
}

fn delivery(event: Event) -> Delivery {
    Delivery {
        id: DeliveryId(7),
        route: "r".into(),
        event: Arc::new(event),
        key: None,
        accepted_at: Timestamp(0),
        due_at: Timestamp(0),
        attempts: 0,
        tries: 0,
        first_attempt_at: None,
    }
}

fn request() -> Request {
    use tidegate_adapters::rabbitmq::{Envelope, OnUnroutable, PublishRequest};
    Request::Rabbitmq(PublishRequest {
        exchange: "orders".into(),
        key: "k".to_owned(),
        headers: Vec::new(),
        envelope: Envelope::Cloudevents,
        on_unroutable: OnUnroutable::Retry,
        trace: None,
        mask: tidegate_adapters::secret::Mask::default(),
    })
}

/// What a request carries.
fn carried(request: &Request) -> TraceContext {
    let Request::Rabbitmq(request) = request else { panic!("{request:?}") };
    request.trace.clone().unwrap()
}

fn about(kind: Kind) -> Arc<About> {
    Arc::new(About { name: "n".to_owned(), kind, attributes: Vec::new() })
}

/// Both ends of a route, recording `sample` of what begins here.
fn ends(sample: f64, kind: Kind) -> (SourceTracer, TargetTracer, mpsc::Receiver<Span>) {
    let (tracer, spans) = Tracer::recording(sample, Metrics::empty());
    let recorder = tracer.recorder;
    let source =
        SourceTracer { recorder: recorder.clone(), about: Some(about(kind)), status: None };
    let target = TargetTracer { recorder, about: Some(about(Kind::Client)) };
    (source, target, spans)
}

fn context(arrival: &Arrival) -> &TraceContext {
    arrival.event.as_ref().unwrap().traceparent.as_ref().unwrap()
}

fn has(span: &Span, name: &str, value: &str) -> bool {
    span.attributes.iter().any(|(known, known_value)| {
        *known == name
            && match known_value {
                Value::Text(text) => text == value,
                Value::Word(word) => *word == value,
                Value::Shared(text) => &**text == value,
                Value::Number(number) => number.to_string() == value,
            }
    })
}

#[test]
fn without_telemetry_the_intake_changes_nothing_and_attempts_stay_in_one_trace() {
    let mut batch = vec![arrival("1", Some(PARENT)), arrival("2", None)];
    SourceTracer::default().receive(&mut batch).end(Ok(&[]));
    assert_eq!(context(&batch[0]).to_string(), PARENT);
    assert_eq!(batch[1].event.as_ref().unwrap().traceparent, None);
    let attempts = |trace| {
        let delivery = delivery(event("1", trace));
        [1, 2].map(|number| {
            let mut request = request();
            drop(TargetTracer::default().attempt(&delivery, number, &mut request));
            carried(&request)
        })
    };
    let [one, two] = attempts(Some(PARENT));
    assert!(one.is_sampled() && one.trace_id() == two.trace_id() && one.span_id() != two.span_id());
    assert_eq!(one.to_string()[..36], PARENT[..36]);
    let [one, two] = attempts(None);
    assert!(!one.is_sampled() && one.trace_id() == two.trace_id(), "{one} {two}");
    assert_ne!(one.span_id(), two.span_id());
}

#[test]
fn a_sender_decides_whether_its_trace_is_recorded() {
    let unsampled = format!("{}00", &PARENT[..53]);
    for (sample, parent, recorded) in [(0.0, PARENT, 1), (1.0, &*unsampled, 0)] {
        let (source, target, mut spans) = ends(sample, Kind::Consumer);
        let mut batch = vec![arrival("1", Some(parent))];
        source.receive(&mut batch).end(Ok(&[Accepted::Pending(DeliveryId(7))]));
        let stored = context(&batch[0]).clone();
        assert_eq!(stored.to_string()[..36], PARENT[..36]);
        assert_eq!(stored.is_sampled(), recorded == 1);
        let delivery = delivery(batch.remove(0).event.unwrap());
        let mut request = request();
        let span = target.attempt(&delivery, 2, &mut request);
        assert_eq!(&carried(&request), span.context());
        span.end(Some(AttemptResult::Success), None, &Outcome::Delivered);
        assert_eq!(spans.len(), 2 * recorded);
        if recorded == 1 {
            let (intake, attempt) = (spans.try_recv().unwrap(), spans.try_recv().unwrap());
            assert_eq!(intake.parent, Some(0xb7ad_6b71_6920_3331));
            assert_eq!(intake.context, stored);
            assert!(has(&intake, "tidegate.outcome", "pending"), "{intake:?}");
            assert!(has(&intake, "tidegate.delivery", "7"), "{intake:?}");
            assert_eq!(attempt.parent, Some(stored.span_id()));
            assert!(!attempt.failed && has(&attempt, "tidegate.outcome", "delivered"));
        }
    }
}

#[test]
fn of_the_traces_that_begin_here_the_share_is_recorded_and_stays_recorded() {
    let (source, target, mut spans) = ends(0.25, Kind::Consumer);
    let mut batch: Vec<Arrival> = (0..2000).map(|n| arrival(&n.to_string(), None)).collect();
    source.receive(&mut batch).end(Ok(&[]));
    let sampled = batch.iter().filter(|arrival| context(arrival).is_sampled()).count();
    assert!((400..600).contains(&sampled), "{sampled}");
    assert_eq!(spans.len(), sampled);
    while spans.try_recv().is_ok() {}
    for arrival in batch {
        let delivery = delivery(arrival.event.unwrap());
        let before = delivery.event.traceparent.clone().unwrap();
        let mut request = request();
        drop(target.attempt(&delivery, 1, &mut request));
        assert_eq!(carried(&request).is_sampled(), before.is_sampled());
    }
    // What was stored before telemetry was turned on is decided alike at each attempt.
    for n in 0..100 {
        let delivery = delivery(event(&n.to_string(), None));
        let [one, two] = [1, 2].map(|number| {
            let mut request = request();
            drop(target.attempt(&delivery, number, &mut request));
            carried(&request)
        });
        assert_eq!((one.trace_id(), one.is_sampled()), (two.trace_id(), two.is_sampled()));
    }
}

#[test]
fn one_request_has_one_span_and_every_message_its_own() {
    for (kind, expected) in [(Kind::Server, 1), (Kind::Consumer, 3)] {
        let (source, _, spans) = ends(1.0, kind);
        let mut batch: Vec<Arrival> = ["1", "2", "3"].map(|id| arrival(id, None)).into();
        let invalid = Invalid { why: "x".to_owned(), raw: "".into(), about: Default::default() };
        batch.insert(1, Arrival { event: Err(invalid), own_id: false });
        source.receive(&mut batch).end(Err(Rejection::QueueFull));
        assert_eq!(spans.len(), expected);
    }
    // A batch of CloudEvents may bring a trace with each.
    let (source, _, spans) = ends(0.0, Kind::Server);
    let mut batch = vec![arrival("1", Some(PARENT)), arrival("2", None), arrival("3", None)];
    source.receive(&mut batch).end(Ok(&[]));
    assert_eq!(spans.len(), 1);
    assert_eq!(context(&batch[1]), context(&batch[2]));
    assert_ne!(context(&batch[0]).trace_id(), context(&batch[1]).trace_id());
}

#[test]
fn what_failed_says_how_and_what_never_reached_the_network_is_no_attempt() {
    let (_, target, mut spans) = ends(1.0, Kind::Consumer);
    let delivery = delivery(event("1", Some(PARENT)));
    let again = Outcome::Retry { at: Timestamp(0), attempts: 1 };
    target.attempt(&delivery, 1, &mut request()).end(None, None, &again);
    assert!(spans.is_empty());
    let span = target.attempt(&delivery, 1, &mut request());
    span.end(Some(AttemptResult::ServerError), Some(503), &again);
    let span = spans.try_recv().unwrap();
    assert!(span.failed && has(&span, "error.type", "5xx"), "{span:?}");
    assert!(has(&span, "http.response.status_code", "503"), "{span:?}");
    assert!(has(&span, "tidegate.outcome", "retry"), "{span:?}");
}

#[test]
fn where_nobody_takes_spans_they_are_dropped_and_counted() {
    let metrics = Metrics::empty();
    let (tracer, spans) = Tracer::recording(1.0, metrics.clone());
    let target =
        TargetTracer { recorder: tracer.recorder.clone(), about: Some(about(Kind::Producer)) };
    let delivery = delivery(event("1", None));
    for _ in 0..WAITING_MAX + 5 {
        let span = target.attempt(&delivery, 1, &mut request());
        span.end(Some(AttemptResult::Success), None, &Outcome::Delivered);
    }
    assert_eq!((spans.len(), metrics.spans_dropped_total()), (WAITING_MAX, 5));
}
