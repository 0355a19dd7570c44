//! What moves inside: replies, and appends that are exempt from the cap.

use super::*;
use crate::queue::Reply;

fn reply(route: &str, id: &str) -> Reply {
    let content = Content::Pending(event(id));
    Reply { route: route.into(), append: Append { content, key: None, dedupe: false } }
}

async fn settle_with(bench: &Bench, delivery: &Arc<Delivery>, reply: Reply) {
    assert!(bench.queue.claim(delivery.id));
    let settlement = Settlement {
        delivery: Arc::clone(delivery),
        outcome: Outcome::Delivered,
        attempt: None,
        reply: Some(reply),
        held: None,
    };
    bench.queue.settle(settlement).await.unwrap();
}

fn big(id: &str, mib: usize) -> Append {
    let data = Data::Binary(vec![0; mib << 20].into());
    let event = Event { data, ..(*event(id)).clone() };
    Append { content: Content::Pending(Arc::new(event)), key: None, dedupe: false }
}

#[tokio::test]
async fn a_reply_is_there_if_and_only_if_the_settlement_is() {
    let bench = Bench::new().await;
    bench.queue.feed(&"other".into()).go_live();
    bench.pending(&["1"]).await;
    let delivery = bench.fed().unwrap();
    let before = bench.crash().await;
    settle_with(&bench, &delivery, reply("other", "reply-1")).await;
    let Fed::Fresh(fed) = bench.queue.feed(&"other".into()).take() else { panic!("not fed") };
    assert_eq!(fed.event.id, "reply-1");
    let after = bench.crash().await;
    for (bench, settled, replies) in [(before, 0, 0), (after, 1, 1)] {
        bench.counts().await;
        let counts = |name| {
            let routes = bench.queue.routes();
            routes.iter().find(|route| &*route.name == name).unwrap().counts
        };
        assert_eq!(counts("r").delivered, settled);
        assert_eq!(counts("other").pending, replies);
    }
}

#[tokio::test]
async fn replies_and_moves_inside_find_room_in_a_full_queue() {
    let bench = Bench::with(|options| {
        options.bounds.max_size = 4 * MIB;
        options.bounds.max_route_share = 1.0;
    })
    .await;
    bench.append(vec![big("1", 3)]).await.unwrap();
    let other = "other".into();
    let refused = bench.queue.append(&other, vec![big("2", 1)], Space::Capped).await;
    assert!(matches!(refused, Err(AppendError::Full(_))), "{refused:?}");
    let delivery = bench.fed().unwrap();
    settle_with(&bench, &delivery, reply("other", "reply-1")).await;
    bench.queue.append(&other, vec![big("2", 4)], Space::Exempt).await.unwrap();
    bench.queue.append(&other, vec![big("3", 4)], Space::Exempt).await.unwrap();
    let refused = bench.append(vec![pending("4", None)]).await;
    assert!(matches!(refused, Err(AppendError::Full(_))), "what moves inside counts for others");
}

#[tokio::test]
async fn a_reply_to_a_route_that_is_gone_does_not_hold_up_the_settling() {
    let bench = Bench::new().await;
    bench.pending(&["1"]).await;
    let delivery = bench.fed().unwrap();
    settle_with(&bench, &delivery, reply("gone", "reply-1")).await;
    assert_eq!(bench.counts().await.delivered, 1);
}
