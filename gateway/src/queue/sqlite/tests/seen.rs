//! The bound on what a repeat window remembers.

use super::*;

/// A queue whose routes remember 64 ids each.
async fn small() -> Bench {
    Bench::with(|options| options.bounds.max_size = 64 * 8 * 64 * 2).await
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

#[tokio::test]
async fn no_more_ids_are_remembered_than_there_is_room_for_and_the_window_says_so() {
    let bench = small().await;
    assert_eq!(take(&bench, &ids(0..60)).await, 0);
    assert_eq!(take(&bench, &ids(0..60)).await, 60);
    bench.counts().await;
    assert_eq!(window(&bench), Duration::from_secs(600), "there is room");
    assert_eq!(take(&bench, &ids(60..100)).await, 0);
    bench.counts().await;
    assert!(window(&bench) < Duration::from_secs(150), "{:?}", window(&bench));
    let reopened = bench.crash().await;
    let connection = rusqlite::Connection::open(&reopened.options.path).unwrap();
    let known = recount::remembered(&connection).into_values().next().unwrap().len();
    assert!((60..=64).contains(&known), "{known} of at most 64");
}

#[tokio::test]
async fn the_whole_window_is_kept_again_once_what_was_forgotten_lies_outside_it() {
    // Long beside a commit, so that what one forgets lies within it.
    const WINDOW: Duration = Duration::from_secs(2);
    let bench = small().await;
    let short = || RouteSettings { dedupe: Some(WINDOW), ..settings("r", false) };
    bench.queue.configure(vec![short()]).await.unwrap();
    let filtered =
        |id: &String| Append { content: Content::Filtered(event(id)), ..pending(id, None) };
    bench.append(ids(0..100).iter().map(filtered).collect()).await.unwrap();
    bench.queue.configure(vec![short()]).await.unwrap();
    assert!(window(&bench) < WINDOW);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    // One event again and again: commits that look after what is old, and hardly remember more.
    while window(&bench) < WINDOW {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", window(&bench));
        take(&bench, &ids(1000..1001)).await;
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn an_id_is_never_given_twice_even_when_all_rows_are_gone() {
    let bench = Bench::with(|options| options.bounds.keep_delivered = Duration::ZERO).await;
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
