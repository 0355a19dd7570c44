//! Pauses of routes and upstreams, notes, and other bounds.

use super::*;

fn is_paused(bench: &Bench, name: &str) -> bool {
    bench.queue.routes().iter().find(|route| &*route.name == name).unwrap().paused
}

#[tokio::test]
async fn a_pause_of_a_route_survives_a_restart_and_its_feed_says_so() {
    let bench = Bench::new().await;
    let route: Arc<str> = "r".into();
    bench.queue.pause_route(&route, true).await.unwrap();
    assert!(is_paused(&bench, "r") && !is_paused(&bench, "other"));
    assert!(bench.queue.feed(&route).is_paused());
    let again = bench.crash().await;
    assert!(is_paused(&again, "r"));
    assert!(again.queue.feed(&route).is_paused());
    assert!(!again.queue.feed(&"other".into()).is_paused());
    again.queue.pause_route(&route, false).await.unwrap();
    assert!(!is_paused(&again, "r") && !again.queue.feed(&route).is_paused());
    assert!(!is_paused(&again.crash().await, "r"));
}

#[tokio::test]
async fn the_time_of_all_pauses_adds_up_over_restarts() {
    let bench = Bench::new().await;
    let route: Arc<str> = "r".into();
    assert_eq!(bench.queue.paused_for(&route), Duration::ZERO);
    bench.queue.pause_route(&route, true).await.unwrap();
    bench.pass(1_000);
    bench.queue.pause_route(&route, true).await.unwrap();
    bench.pass(1_000);
    assert_eq!(bench.queue.paused_for(&route), Duration::from_secs(2), "twice is once");
    let again = bench.crash().await;
    again.pass(3_000);
    assert_eq!(again.queue.paused_for(&route), Duration::from_secs(5), "it went on meanwhile");
    again.queue.pause_route(&route, false).await.unwrap();
    again.pass(10_000);
    assert_eq!(again.queue.paused_for(&route), Duration::from_secs(5));
    again.queue.pause_route(&route, true).await.unwrap();
    again.pass(500);
    assert_eq!(again.queue.paused_for(&route), Duration::from_millis(5_500));
    assert_eq!(again.crash().await.queue.paused_for(&route), Duration::from_millis(5_500));
}

#[tokio::test]
async fn a_route_that_is_not_configured_is_paused_and_an_unknown_one_is_not() {
    let bench = Bench::new().await;
    bench.queue.configure(vec![settings("other", false)]).await.unwrap();
    bench.queue.pause_route(&"r".into(), true).await.unwrap();
    assert!(is_paused(&bench, "r"));
    let unknown = bench.queue.pause_route(&"nobody".into(), true).await.unwrap_err();
    assert_eq!(unknown.to_string(), "there is no route nobody");
    assert_eq!(bench.queue.paused_for(&"nobody".into()), Duration::ZERO);
}

#[tokio::test]
async fn paused_upstreams_are_kept() {
    let bench = Bench::new().await;
    for (upstream, paused) in [("a", true), ("b", true), ("b", true), ("a", false), ("c", false)] {
        bench.queue.pause_upstream(&upstream.into(), paused).await.unwrap();
    }
    let only_b = BTreeSet::from(["b".into()]);
    assert_eq!(bench.queue.paused_upstreams(), only_b);
    assert_eq!(bench.crash().await.queue.paused_upstreams(), only_b);
}

#[tokio::test]
async fn a_note_is_kept() {
    let bench = Bench::new().await;
    assert_eq!(bench.queue.note("bindings").await.unwrap(), None);
    bench.queue.keep_note("bindings", "one".to_owned()).await.unwrap();
    bench.queue.keep_note("bindings", "two".to_owned()).await.unwrap();
    let again = bench.crash().await;
    assert_eq!(again.queue.note("bindings").await.unwrap().as_deref(), Some("two"));
    assert_eq!(again.queue.note("other").await.unwrap(), None);
}

#[tokio::test]
async fn other_bounds_hold_from_then_on() {
    let bench = Bench::new().await;
    let big = |id: &str| {
        let mut event = Event::clone(&event(id));
        event.data = Data::Binary(vec![7; 1 << 20].into());
        Append { content: Content::Pending(Arc::new(event)), key: None, dedupe: true }
    };
    bench.append(vec![big("a"), big("b")]).await.unwrap();
    let less = Bounds { max_size: 4 * MIB, max_route_share: 0.25, ..bench.options.bounds };
    bench.queue.set_bounds(less).await.unwrap();
    assert_eq!(bench.queue.status().bytes_max, 4 * MIB);
    let refused = bench.append(vec![big("c")]).await;
    assert!(matches!(refused, Err(AppendError::Full(_))), "{refused:?}");
    let folder = bench.options.path.parent().unwrap();
    let ballast = std::fs::metadata(folder.join("q.db.ballast")).unwrap();
    assert_eq!(ballast.len(), 4 * MIB / 16);
    let shorter = Bounds { keep_delivered: Duration::from_secs(1), ..bench.options.bounds };
    bench.queue.set_bounds(shorter).await.unwrap();
    let delivery = bench.fed().unwrap();
    bench.settle(&delivery, Outcome::Delivered).await;
    bench.pass(1_001);
    bench.append(vec![big("c")]).await.unwrap();
    assert_eq!(bench.counts().await.delivered, 0, "kept no longer than is now said");
}

#[tokio::test]
async fn dead_ones_that_hold_their_keys_do_not_keep_others_from_being_pruned() {
    let bench = Bench::new().await;
    bench.queue.configure(vec![settings("r", true)]).await.unwrap();
    let keys: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    let holding = keys.iter().map(|key| pending(key, Some(key))).collect();
    bench.append(holding).await.unwrap();
    bench.append(vec![pending("free", None)]).await.unwrap();
    while let Some(delivery) = bench.fed() {
        bench.settle(&delivery, dead(DeadReason::Rejected)).await;
    }
    bench.pass(36_000_001);
    for n in 0..10 {
        bench.pending(&[&format!("later {n}")]).await;
    }
    bench.queue.configure(vec![settings("r", true)]).await.unwrap();
    let routes = bench.queue.routes();
    assert_eq!(routes[0].counts.dead, 300, "the free one is gone, those that hold are not");
}
