//! Replay and discard of one delivery.

use super::*;

fn id(appended: &Appended) -> DeliveryId {
    let Appended::Pending(id) = appended else { panic!("{appended:?}") };
    *id
}

fn unfit(result: Result<(), QueueError>) -> &'static str {
    match result {
        Err(QueueError::Unfit { state, .. }) => state,
        other => panic!("{other:?}"),
    }
}

async fn state(bench: &Bench, id: DeliveryId) -> State {
    bench.queue.show(id).await.unwrap().state
}

#[tokio::test]
async fn a_dead_one_is_replayed_as_if_it_were_new_with_the_same_idempotency_key() {
    let bench = Bench::new().await;
    bench.pending(&["a"]).await;
    let first = bench.fed().unwrap();
    bench.settle(&first, Outcome::Retry { at: Timestamp(1_000_000), attempts: 1 }).await;
    let second = bench.due().await.remove(0);
    bench.settle(&second, dead(DeadReason::Exhausted)).await;
    bench.pass(7_000);
    bench.act(Action::Replay, first.id).await.unwrap();
    let replayed = bench.fed().expect("it is fed");
    assert_eq!((replayed.id, replayed.attempts, replayed.tries), (first.id, 0, 0));
    assert_eq!(replayed.first_attempt_at, None);
    assert_eq!(replayed.due_at, Timestamp(1_007_000));
    assert_eq!(replayed.idempotency_key(), first.idempotency_key());
    let shown = bench.queue.show(first.id).await.unwrap();
    assert_eq!((shown.state, shown.dead, shown.attempts.len()), (State::Pending, None, 0));
    let again = bench.crash().await;
    assert_eq!(ids(&again.due().await), ["a"]);
    again.settle(&again.due().await[0], Outcome::Delivered).await;
    assert_eq!(state(&again, first.id).await, State::Delivered);
}

#[tokio::test]
async fn a_delivered_one_is_replayed_and_others_are_not() {
    let bench = Bench::new().await;
    let appended = bench.pending(&["a", "b", "c"]).await;
    let delivered = bench.fed().unwrap();
    bench.settle(&delivered, Outcome::Delivered).await;
    bench.act(Action::Replay, delivered.id).await.unwrap();
    assert_eq!(state(&bench, delivered.id).await, State::Pending);
    assert_eq!(unfit(bench.act(Action::Replay, id(&appended[1])).await), "pending");
    assert!(bench.queue.claim(id(&appended[1])));
    assert_eq!(unfit(bench.act(Action::Replay, id(&appended[1])).await), "active");
    bench.act(Action::Discard, id(&appended[2])).await.unwrap();
    assert_eq!(unfit(bench.act(Action::Replay, id(&appended[2])).await), "discarded");
    let missing = bench.act(Action::Replay, DeliveryId(99)).await;
    assert!(matches!(missing, Err(QueueError::Missing(DeliveryId(99)))), "{missing:?}");
}

#[tokio::test]
async fn what_is_no_event_can_be_discarded_and_not_replayed() {
    let bench = Bench::new().await;
    let invalid = Invalid {
        why: "not JSON".to_owned(),
        raw: Bytes::from_static(b"{"),
        about: serde_json::Map::new(),
    };
    let append = Append { content: Content::Invalid(invalid), key: None, dedupe: true };
    let appended = bench.append(vec![append]).await.unwrap();
    let Appended::Dead(id) = appended[0] else { panic!("{appended:?}") };
    assert_eq!(unfit(bench.act(Action::Replay, id).await), "dead and not an event");
    bench.act(Action::Discard, id).await.unwrap();
    let shown = bench.queue.show(id).await.unwrap();
    assert_eq!(shown.state, State::Discarded);
    assert_eq!(shown.dead, Some((DeadReason::Invalid, "not JSON".to_owned())));
}

#[tokio::test]
async fn one_whose_order_key_failed_is_replayed() {
    let bench = Bench::new().await;
    let failed = Content::Dead(event("a"), DeadReason::Expression, "when: no".to_owned());
    let append = Append { content: failed, key: Some("k".into()), dedupe: true };
    let appended = bench.append(vec![append]).await.unwrap();
    let Appended::Dead(id) = appended[0] else { panic!("{appended:?}") };
    bench.act(Action::Replay, id).await.unwrap();
    assert_eq!(ids(&bench.due().await), ["a"]);
}

#[tokio::test]
async fn a_replayed_one_goes_behind_what_its_key_holds() {
    let bench = Bench::new().await;
    bench.keyed(&[("a1", "a"), ("a2", "a"), ("a3", "a")]).await;
    let first = bench.fed().unwrap();
    bench.settle(&first, dead(DeadReason::Rejected)).await;
    bench.act(Action::Replay, first.id).await.unwrap();
    bench.keyed(&[("a4", "a")]).await;
    let bench = bench.again(false).await;
    bench.queue.feed(&"r".into()).go_live();
    let mut order = Vec::new();
    let mut due = bench.due().await;
    while let Some(delivery) = due.pop() {
        assert!(due.is_empty(), "one of a key at a time");
        order.push(delivery.event.id.clone());
        bench.settle(&delivery, Outcome::Delivered).await;
        due = bench.due().await;
    }
    assert_eq!(order, ["a2", "a3", "a1", "a4"]);
}

#[tokio::test]
async fn the_place_of_a_replayed_one_is_never_given_again() {
    let bench = Bench::new().await;
    let appended = bench.keyed(&[("a1", "a"), ("a2", "a")]).await;
    let first = bench.fed().unwrap();
    bench.settle(&first, dead(DeadReason::Rejected)).await;
    bench.act(Action::Replay, first.id).await.unwrap();
    let again = bench.crash().await;
    let next = again.keyed(&[("a3", "a")]).await;
    assert!(id(&next[0]).0 > id(&appended[1]).0 + 1, "{next:?}");
}

#[tokio::test]
async fn one_that_holds_its_key_keeps_its_place_when_it_is_replayed() {
    let bench = Bench::new().await;
    bench.queue.configure(vec![settings("r", true)]).await.unwrap();
    bench.keyed(&[("a1", "a"), ("a2", "a")]).await;
    let head = bench.fed().unwrap();
    bench.settle(&head, dead(DeadReason::Rejected)).await;
    let bench = bench.again(true).await;
    assert!(bench.due().await.is_empty());
    bench.act(Action::Replay, head.id).await.unwrap();
    assert_eq!(ids(&bench.due().await), ["a1"]);
    bench.settle(&bench.due().await[0], dead(DeadReason::Rejected)).await;
    assert!(bench.due().await.is_empty(), "it holds its key again");
    bench.act(Action::Discard, head.id).await.unwrap();
    assert_eq!(ids(&bench.due().await), ["a2"], "discarding it lets the next go");
}

#[tokio::test]
async fn a_delivered_one_waits_behind_one_that_holds_its_key() {
    let bench = Bench::new().await;
    bench.queue.configure(vec![settings("r", true)]).await.unwrap();
    bench.keyed(&[("a1", "a"), ("a2", "a")]).await;
    let delivered = bench.fed().unwrap();
    bench.settle(&delivered, Outcome::Delivered).await;
    let holds = bench.fed().unwrap();
    bench.settle(&holds, dead(DeadReason::Rejected)).await;
    bench.act(Action::Replay, delivered.id).await.unwrap();
    assert!(bench.due().await.is_empty());
    bench.act(Action::Replay, holds.id).await.unwrap();
    bench.settle(&bench.due().await[0], Outcome::Delivered).await;
    assert_eq!(ids(&bench.due().await), ["a1"]);
}

#[tokio::test]
async fn discarding_the_first_of_a_key_lets_the_next_go_and_a_later_one_nobody() {
    let bench = Bench::new().await;
    let appended = bench.keyed(&[("a1", "a"), ("a2", "a"), ("a3", "a")]).await;
    let feed = bench.queue.feed(&"r".into());
    bench.act(Action::Discard, id(&appended[1])).await.unwrap();
    assert_eq!(ids(&bench.due().await), ["a1"]);
    assert_eq!(feed.epoch(), 1);
    bench.act(Action::Discard, id(&appended[0])).await.unwrap();
    assert_eq!(ids(&bench.due().await), ["a3"]);
    assert_eq!(feed.epoch(), 2);
    let again = bench.crash().await;
    assert_eq!(ids(&again.due().await), ["a3"]);
    let counts = again.counts().await;
    assert_eq!((counts.pending, counts.discarded), (1, 2));
}

#[tokio::test]
async fn one_that_is_being_attempted_is_left_alone() {
    let bench = Bench::new().await;
    bench.pending(&["a"]).await;
    let delivery = bench.fed().unwrap();
    assert!(bench.queue.claim(delivery.id));
    assert_eq!(unfit(bench.act(Action::Discard, delivery.id).await), "active");
    assert!(bench.queue.claimed(delivery.id), "its claim is the loop's");
    assert_eq!(bench.queue.feed(&"r".into()).epoch(), 0);
    bench.queue.unclaim(delivery.id);
    bench.settle(&delivery, Outcome::Delivered).await;
    assert_eq!(unfit(bench.act(Action::Discard, delivery.id).await), "delivered");
}

#[tokio::test]
async fn what_the_feed_still_holds_is_gone_with_the_epoch() {
    let bench = Bench::new().await;
    let appended = bench.pending(&["a", "b"]).await;
    bench.act(Action::Discard, id(&appended[0])).await.unwrap();
    let feed = bench.queue.feed(&"r".into());
    assert_eq!(feed.epoch(), 1);
    assert!(matches!(feed.take(), Fed::Behind), "the loop reads again");
    assert!(!bench.queue.claimed(id(&appended[0])), "the claim is given back");
    assert_eq!(ids(&bench.due().await), ["b"]);
}

#[tokio::test]
async fn the_second_discard_of_one_is_told_so() {
    let bench = Bench::new().await;
    let appended = bench.pending(&["a"]).await;
    let one = id(&appended[0]);
    let (first, second) =
        tokio::join!(bench.act(Action::Discard, one), bench.act(Action::Discard, one));
    first.unwrap();
    assert_eq!(unfit(second), "discarded");
    assert_eq!(bench.counts().await.discarded, 1);
}

#[tokio::test]
async fn a_repeat_of_a_discarded_one_is_enqueued_anew_and_of_a_replayed_one_is_not() {
    let bench = Bench::new().await;
    let appended = bench.pending(&["a", "b"]).await;
    bench.act(Action::Discard, id(&appended[0])).await.unwrap();
    assert!(matches!(bench.pending(&["a"]).await[..], [Appended::Pending(_)]));
    let delivery = bench.due().await.remove(0);
    assert_eq!(delivery.event.id, "b");
    bench.settle(&delivery, dead(DeadReason::Rejected)).await;
    bench.act(Action::Replay, delivery.id).await.unwrap();
    assert_eq!(bench.pending(&["b"]).await, [Appended::Duplicate(delivery.id)]);
}

#[tokio::test]
async fn a_replay_needs_no_room() {
    let bench = Bench::with(|options| {
        options.bounds.max_size = 4 * MIB;
        options.bounds.max_route_share = 0.25;
    })
    .await;
    let big = |id: &str| {
        let mut event = Event::clone(&event(id));
        event.data = Data::Binary(vec![7; 900 << 10].into());
        Append { content: Content::Pending(Arc::new(event)), key: None, dedupe: true }
    };
    bench.append(vec![big("a")]).await.unwrap();
    let first = bench.fed().unwrap();
    bench.settle(&first, Outcome::Delivered).await;
    bench.append(vec![big("b")]).await.unwrap();
    bench.act(Action::Replay, first.id).await.unwrap();
    assert_eq!(bench.counts().await.pending, 2);
}

#[tokio::test]
async fn deliveries_of_a_route_that_is_gone_are_replayed_and_discarded() {
    let bench = Bench::new().await;
    let appended = bench.pending(&["a", "b"]).await;
    let first = bench.fed().unwrap();
    bench.settle(&first, dead(DeadReason::Rejected)).await;
    bench.queue.configure(vec![settings("other", false)]).await.unwrap();
    bench.act(Action::Replay, first.id).await.unwrap();
    bench.act(Action::Discard, id(&appended[1])).await.unwrap();
    let routes = bench.queue.routes();
    let orphan = routes.iter().find(|route| &*route.name == "r").unwrap();
    assert!(!orphan.configured);
    assert_eq!((orphan.counts.pending, orphan.counts.discarded), (1, 1));
}

#[tokio::test]
async fn one_that_is_replayed_while_it_is_still_in_hand_is_counted_for_the_loop() {
    let bench = Bench::new().await;
    bench.pending(&["a"]).await;
    let delivery = bench.fed().unwrap();
    bench.settle(&delivery, dead(DeadReason::Rejected)).await;
    let feed = bench.queue.feed(&"r".into());
    let before = feed.replays();
    bench.act(Action::Replay, delivery.id).await.unwrap();
    assert_ne!(feed.replays(), before);
}

#[tokio::test]
async fn a_discarded_one_is_pruned_with_the_history() {
    let bench = Bench::new().await;
    let appended = bench.pending(&["a"]).await;
    bench.act(Action::Discard, id(&appended[0])).await.unwrap();
    bench.pass(3_600_001);
    bench.pending(&["b"]).await;
    let counts = bench.counts().await;
    assert_eq!((counts.pending, counts.discarded), (1, 0));
}
