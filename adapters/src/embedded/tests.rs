use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::{Data, DeliveryId};

/// An intake that remembers what it was given, and answers what it was told.
struct Recorder {
    answer: Result<(), Refused>,
    taken: Mutex<Vec<Arrival>>,
    connected: Mutex<Vec<bool>>,
}

impl Recorder {
    fn new(answer: Result<(), Refused>) -> Arc<Self> {
        Arc::new(Self { answer, taken: Mutex::default(), connected: Mutex::default() })
    }

    fn ids(&self) -> Vec<String> {
        let taken = self.taken.lock();
        taken.iter().map(|arrival| arrival.event.as_ref().unwrap().id.clone()).collect()
    }
}

impl Intake for Recorder {
    fn accept(&self, batch: Vec<Arrival>) -> BoxFuture<'static, Result<Vec<Accepted>, Refused>> {
        let accepted = vec![Accepted::Pending(DeliveryId(1)); batch.len()];
        let answer = self.answer.map(|()| accepted);
        if answer.is_ok() {
            self.taken.lock().extend(batch);
        }
        Box::pin(async move { answer })
    }

    fn room(&self) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }

    fn connected(&self, up: bool) {
        self.connected.lock().push(up);
    }
}

fn bind(exchange: &str, key: &str) -> BindConfig {
    BindConfig { exchange: exchange.to_owned(), key: key.to_owned() }
}

fn event(id: &str) -> Event {
    Event {
        id: id.to_owned(),
        source: "/orders".to_owned(),
        kind: "order.confirmed".to_owned(),
        subject: None,
        time: None,
        datacontenttype: None,
        dataschema: None,
        extensions: std::collections::BTreeMap::new(),
        traceparent: None,
        hops: 0,
        data: Data::Absent,
    }
}

#[tokio::test]
async fn an_event_goes_to_every_route_bound_for_it_and_to_no_other() {
    let (points, audit, other) =
        (Recorder::new(Ok(())), Recorder::new(Ok(())), Recorder::new(Ok(())));
    let broker = Embedded::default();
    broker.bind("points", vec![bind("orders", "order.confirmed.#")], points.clone());
    broker.bind("audit", vec![bind("orders", "#")], audit.clone());
    broker.bind("other", vec![bind("kitchen", "#"), bind("orders", "order.paid")], other.clone());

    let routes = broker.publish("orders", "order.confirmed.v1", &event("1")).await;
    assert_eq!(routes, Ok(2));
    assert_eq!(broker.clone().publish("orders", "order.rejected", &event("2")).await, Ok(1));
    assert_eq!(broker.publish("nowhere", "order.paid", &event("3")).await, Ok(0));

    assert_eq!(points.ids(), ["1"]);
    assert_eq!(audit.ids(), ["1", "2"]);
    assert!(other.ids().is_empty());
    assert!(points.taken.lock().iter().all(|arrival| arrival.own_id), "repeats are known");
}

#[tokio::test]
async fn an_event_that_matches_two_bindings_of_a_route_is_offered_once() {
    let intake = Recorder::new(Ok(()));
    let broker = Embedded::default();
    let wants = vec![bind("orders", "order.#"), bind("orders", "#.v1"), bind("orders", "order.#")];
    broker.bind("points", wants, intake.clone());
    assert_eq!(broker.publish("orders", "order.confirmed.v1", &event("1")).await, Ok(1));
    assert_eq!(intake.ids(), ["1"]);
}

#[tokio::test]
async fn a_refusal_is_told_after_all_routes_were_asked() {
    let (full, open) = (Recorder::new(Err(Refused::Full)), Recorder::new(Ok(())));
    let broker = Embedded::default();
    broker.bind("a-full", vec![bind("orders", "#")], full.clone());
    broker.bind("b-open", vec![bind("orders", "#")], open.clone());
    let refused = Err(PublishError::Refused(Refused::Full));
    assert_eq!(broker.publish("orders", "order.paid", &event("1")).await, refused);
    assert_eq!(open.ids(), ["1"], "it keeps what it took");
    assert!(full.ids().is_empty());
}

#[tokio::test]
async fn a_routing_key_that_amqp_could_not_carry_is_refused() {
    let intake = Recorder::new(Ok(()));
    let broker = Embedded::default();
    broker.bind("points", vec![bind("orders", "#")], intake.clone());
    let too_long = broker.publish("orders", &"é".repeat(128), &event("1")).await;
    assert_eq!(too_long, Err(PublishError::KeyTooLong(256)));
    assert!(intake.ids().is_empty());
    assert_eq!(broker.publish("orders", &"k".repeat(255), &event("2")).await, Ok(1));
}

#[tokio::test]
async fn binding_starts_the_repeat_window_and_binding_again_replaces() {
    let (before, after) = (Recorder::new(Ok(())), Recorder::new(Ok(())));
    let broker = Embedded::default();
    broker.bind("points", vec![bind("orders", "#")], before.clone());
    broker.bind("points", vec![bind("orders", "order.paid")], after.clone());
    assert_eq!(*before.connected.lock(), [true]);
    assert_eq!(*after.connected.lock(), [true]);
    assert_eq!(broker.publish("orders", "order.confirmed", &event("1")).await, Ok(0));
    assert_eq!(broker.publish("orders", "order.paid", &event("2")).await, Ok(1));
    assert!(before.ids().is_empty());
    assert_eq!(after.ids(), ["2"]);
}

#[test]
fn topics_match_as_in_rabbitmq() {
    let table = [
        // The examples of RabbitMQ's fifth tutorial.
        ("*.orange.*", "quick.orange.rabbit", true),
        ("*.*.rabbit", "quick.orange.rabbit", true),
        ("lazy.#", "quick.orange.rabbit", false),
        ("*.orange.*", "lazy.orange.elephant", true),
        ("*.*.rabbit", "lazy.orange.elephant", false),
        ("lazy.#", "lazy.orange.elephant", true),
        ("*.orange.*", "quick.orange.fox", true),
        ("lazy.#", "lazy.brown.fox", true),
        ("lazy.#", "lazy.pink.rabbit", true),
        ("*.*.rabbit", "lazy.pink.rabbit", true),
        ("*.orange.*", "quick.brown.fox", false),
        ("lazy.#", "orange", false),
        ("*.orange.*", "quick.orange.new.rabbit", false),
        ("lazy.#", "lazy.orange.new.rabbit", true),
        // No words, one word, empty words.
        ("#", "", true),
        ("*", "", false),
        ("", "", true),
        ("", "a", false),
        ("*", "one", true),
        ("*", "one.two", false),
        ("#", "anything.at.all", true),
        ("a.*.b", "a..b", true),
        ("a.b", "a..b", false),
        ("*.*", ".", true),
        ("a.*", "a.", true),
        ("a", "a.", false),
        ("a.#", "a.", true),
        // Several hashes, hashes at every end.
        ("lazy.#", "lazy", true),
        ("#.v1", "v1", true),
        ("#.v1", "a.b.v1", true),
        ("a.#.b", "a.b", true),
        ("a.#.b", "a.x.y.b", true),
        ("#.#", "", true),
        ("#.*", "", false),
        ("#.*.#", "a", true),
        ("#.a.#.a.#", "a", false),
        ("#.a.#.a.#", "x.a.a.x", true),
        // Only whole words are wild, and only in the pattern.
        ("order.confirmed.#", "order.confirmed.v1", true),
        ("order.confirmed.#", "order.confirmedv1", false),
        ("order.conf*", "order.confirmed", false),
        ("order.confirmed", "order.*", false),
        ("order", "Order", false),
    ];
    for (pattern, key, matches) in table {
        assert_eq!(topic_matches(pattern, key), matches, "{pattern:?} against {key:?}");
    }
}

/// With backtracking this would not end before the sun does.
#[test]
fn a_hundred_hashes_take_no_time() {
    let pattern = ["#"; 100].join(".a.") + ".end";
    let key = ["a"; 127].join(".");
    assert!(!topic_matches(&pattern, &key));
}

/// The definition, word by word.
fn reference(pattern: &[&str], words: &[&str]) -> bool {
    match pattern {
        [] => words.is_empty(),
        ["#", rest @ ..] => (0..=words.len()).any(|n| reference(rest, &words[n..])),
        [part, rest @ ..] => match words {
            [word, others @ ..] => (*part == "*" || part == word) && reference(rest, others),
            [] => false,
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn matching_agrees_with_the_plain_definition(
        pattern in prop::collection::vec(prop::sample::select(vec!["a", "b", "", "*", "#"]), 1..7),
        key in prop::collection::vec(prop::sample::select(vec!["a", "b", "c", ""]), 1..7),
    ) {
        // One empty word joins to the empty key, which has none.
        let no_words = |words: &[&str]| words == [""];
        prop_assume!(!no_words(&pattern) && !no_words(&key));
        let expected = reference(&pattern, &key);
        prop_assert_eq!(topic_matches(&pattern.join("."), &key.join(".")), expected);
    }

    #[test]
    fn matching_takes_any_text(pattern in ".{0,300}", key in ".{0,300}") {
        let _ = topic_matches(&pattern, &key);
        prop_assert!(topic_matches("#", &key));
        let wild = key.split('.').any(|word| word == "#" || word == "*");
        prop_assert!(wild || topic_matches(&key, &key));
        let (longer, open) = (format!("{key}.more"), format!("{key}.#"));
        prop_assert!(wild || !topic_matches(&key, &longer));
        prop_assert!(wild || topic_matches(&open, &longer));
    }
}

fn call(hops: u32, on_unroutable: OnUnroutable) -> Call {
    #[derive(Debug)]
    struct Open;
    impl crate::Gate for Open {
        fn pass(&self) -> BoxFuture<'_, ()> {
            Box::pin(async {})
        }
        fn pass_again(&self) -> BoxFuture<'_, ()> {
            Box::pin(async {})
        }
        fn waited(&self) -> std::time::Duration {
            std::time::Duration::ZERO
        }
    }
    let delivery = crate::Delivery {
        id: DeliveryId(1),
        route: "r".into(),
        event: Arc::new(Event { hops, ..event("e-1") }),
        key: None,
        accepted_at: crate::Timestamp(0),
        due_at: crate::Timestamp(0),
        attempts: 0,
        tries: 0,
        first_attempt_at: None,
    };
    let request = crate::rabbitmq::PublishRequest {
        exchange: "orders".into(),
        key: "order.confirmed".to_owned(),
        headers: Vec::new(),
        envelope: crate::rabbitmq::Envelope::Cloudevents,
        on_unroutable,
        trace: None,
        mask: crate::secret::Mask::default(),
    };
    let request = Request::Rabbitmq(request);
    Call { delivery: Arc::new(delivery), attempt: 1, request, gate: Arc::new(Open) }
}

#[tokio::test]
async fn what_a_route_publishes_moves_inside_and_is_counted() {
    use tower::ServiceExt as _;

    let (broker, intake) = (Embedded::default(), Recorder::new(Ok(())));
    broker.bind("next", vec![bind("orders", "#")], intake.clone());
    let receipt = broker.service().oneshot(call(3, OnUnroutable::Retry)).await.unwrap();
    assert_eq!(receipt.result, AttemptResult::Success);
    assert_eq!(intake.taken.lock()[0].event.as_ref().unwrap().hops, 4);
    let ring = broker.service().oneshot(call(HOPS_MAX, OnUnroutable::Retry)).await.unwrap_err();
    assert_eq!(ring.verdict, Verdict::Dead(DeadReason::Rejected));
    assert!(ring.detail.contains("ring"), "{}", ring.detail);
    assert_eq!(intake.taken.lock().len(), 1);
}

#[tokio::test]
async fn what_nothing_is_bound_for_follows_the_route() {
    use tower::ServiceExt as _;

    let broker = Embedded::default();
    let publish = |on_unroutable| broker.service().oneshot(call(0, on_unroutable));
    let dropped = publish(OnUnroutable::Drop).await.unwrap();
    assert_eq!(dropped.result, AttemptResult::Unroutable);
    let cases = [
        (OnUnroutable::Retry, Verdict::Retry { after: None }),
        (OnUnroutable::Dead, Verdict::Dead(DeadReason::Unroutable)),
    ];
    for (on_unroutable, verdict) in cases {
        let failure = publish(on_unroutable).await.unwrap_err();
        assert_eq!((failure.result, failure.verdict), (Some(AttemptResult::Unroutable), verdict));
    }
}

#[tokio::test]
async fn a_route_that_has_no_room_is_tried_again_without_an_attempt() {
    use tower::ServiceExt as _;

    let broker = Embedded::default();
    broker.bind("next", vec![bind("orders", "#")], Recorder::new(Err(Refused::Full)));
    let failure = broker.service().oneshot(call(0, OnUnroutable::Retry)).await.unwrap_err();
    assert_eq!((failure.result, failure.verdict), (None, Verdict::Retry { after: None }));
}
