//! The bound on what a repeat window remembers.

use super::*;

/// A queue whose routes remember 64 ids each.
async fn small() -> Bench {
    Bench::with(|options| options.max_size = 64 * 8 * 64 * 2).await
}

fn ids(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| format!("e-{n}")).collect()
}

async fn take(bench: &Bench, ids: &[String]) -> usize {
    let mut repeats = 0;
    for id in ids {
        let append = pending(id, None);
        let append = Append { content: Content::Filtered(event(id)), ..append };
        let appended = bench.append(vec![append]).await.unwrap();
        repeats += usize::from(matches!(appended[0], Appended::Duplicate(_)));
    }
    repeats
}

fn window(bench: &Bench) -> Duration {
    let routes = bench.queue.routes();
    routes.iter().find(|route| &*route.name == "r").unwrap().dedupe.unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_oldest_ids_go_first_when_there_is_no_room_and_the_window_says_so() {
    let bench = small().await;
    assert_eq!(take(&bench, &ids(0..50)).await, 0);
    bench.counts().await;
    assert_eq!(window(&bench), Duration::from_secs(600), "there is room");
    tokio::time::advance(Duration::from_secs(200)).await;
    assert_eq!(take(&bench, &ids(100..150)).await, 0);
    bench.counts().await;
    let kept = window(&bench);
    assert!(kept < Duration::from_secs(200) && kept >= Duration::from_secs(40), "{kept:?}");
    assert_eq!(take(&bench, &ids(100..150)).await, 50, "the newer ones are all known");
    let reopened = bench.crash().await;
    assert_eq!(take(&reopened, &ids(100..150)).await, 50, "also after a crash");
}

#[tokio::test(start_paused = true)]
async fn the_whole_window_is_kept_again_once_what_was_forgotten_lies_outside_it() {
    let bench = small().await;
    take(&bench, &ids(0..100)).await;
    tokio::time::advance(Duration::from_secs(1200)).await;
    take(&bench, &ids(200..201)).await;
    bench.counts().await;
    assert_eq!(window(&bench), Duration::from_secs(600));
}

#[tokio::test]
async fn an_id_is_never_given_twice_even_when_all_rows_are_gone() {
    let bench = Bench::with(|options| options.keep_delivered = Duration::ZERO).await;
    let Appended::Pending(first) = bench.pending(&["1"]).await[0] else { panic!("not pending") };
    let delivery = bench.fed().unwrap();
    bench.settle(&delivery, Outcome::Delivered).await;
    bench.pass(10);
    // A commit that appends prunes, too: what it appends is settled at once.
    let append = Append { content: Content::Filtered(event("2")), key: None, dedupe: true };
    bench.append(vec![append]).await.unwrap();
    assert_eq!(bench.counts().await.delivered, 0, "its row is gone");
    let bench = bench.crash().await;
    let Appended::Pending(next) = bench.pending(&["3"]).await[0] else { panic!("not pending") };
    assert!(next > first, "{next} after {first}");
}
