//! Files that are cut short, have lost a part, or a bit.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use tempfile::TempDir;
use tidegate::queue::Queue as _;
use tidegate_tests::queue_file::{events, fill, open, whole};

const COUNT: usize = 12;

/// Whether every byte is wanted, as the long form does it.
fn every_byte() -> bool {
    std::env::var("TIDEGATE_CRASH_POINTS").is_ok_and(|wanted| wanted == "all")
}

fn log_of(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}-wal", path.display()))
}

/// The file and the log of a queue, as a crash leaves them: the file empty but for its header, all
/// else in the log.
async fn crashed() -> (Vec<u8>, Vec<u8>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("q.db");
    let queue = open(&path).expect("a fresh one");
    fill(&queue, COUNT).await.expect("there is room");
    let file = std::fs::read(&path).expect("the file");
    let log = std::fs::read(log_of(&path)).expect("the log");
    queue.close().await;
    (file, log)
}

/// The file of a queue that was closed.
async fn closed() -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("q.db");
    let queue = open(&path).expect("a fresh one");
    fill(&queue, COUNT).await.expect("there is room");
    queue.close().await;
    std::fs::read(&path).expect("the file")
}

/// What a queue with this file and this log holds, or what it says.
async fn look(file: &[u8], log: &[u8]) -> (TempDir, Result<BTreeMap<String, Bytes>, String>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("q.db");
    std::fs::write(&path, file).expect("writable");
    if !log.is_empty() {
        std::fs::write(log_of(&path), log).expect("writable");
    }
    let queue = match open(&path) {
        Ok(queue) => queue,
        Err(said) => return (folder, Err(said)),
    };
    let found = events(&queue).await;
    if found.is_ok() {
        assert!(queue.status().writable, "the writer is gone");
    }
    queue.close().await;
    (folder, found)
}

fn is_first(found: &BTreeMap<String, Bytes>) -> bool {
    (0..found.len()).all(|n| found.contains_key(&format!("e-{n}")))
}

fn intact(found: &BTreeMap<String, Bytes>) -> usize {
    let tail = format!("\"filler\":\"{}\"}}", "x".repeat(600));
    let good = found.iter().filter(|(id, data)| {
        let n = id.trim_start_matches("e-");
        data[..] == *format!("{{\"n\":{n},{tail}").as_bytes()
    });
    good.count()
}

#[tokio::test]
async fn d4_a_log_that_was_cut_anywhere_holds_all_up_to_there() {
    let (file, log) = crashed().await;
    // Around every fifth page of the log, and where nothing in particular begins.
    let frames = (32..log.len()).step_by(8216 * 5);
    let mut cuts: Vec<usize> = if every_byte() {
        (1..=log.len()).collect()
    } else {
        let around = frames.flat_map(|at| [at.saturating_sub(1), at, at + 25]);
        around.chain((1..log.len()).step_by(32_749)).filter(|at| *at <= log.len()).collect()
    };
    cuts.push(log.len());
    cuts.sort_unstable();
    let mut least = 0;
    for cut in cuts {
        let (folder, found) = look(&file, &log[..cut]).await;
        let found = found.unwrap_or_else(|said| panic!("cut at {cut}: {said}"));
        assert!(is_first(&found), "cut at {cut}: {:?}", found.keys());
        assert_eq!(intact(&found), found.len(), "cut at {cut}");
        assert!(found.len() >= least, "cut at {cut}: less than with a shorter one");
        least = found.len();
        whole(&folder.path().join("q.db")).expect("whole");
        let mut garbled = log[..cut].to_vec();
        garbled.resize(cut + 700, 0xA5);
        let (_folder, beyond) = look(&file, &garbled).await;
        assert_eq!(beyond.expect("the good part of it").len(), found.len(), "garbled at {cut}");
    }
    assert_eq!(least, COUNT, "all of it holds all");
}

#[tokio::test]
async fn d6_a_bit_that_turned_is_refused_or_costs_what_it_is_in_and_nothing_panics() {
    let file = closed().await;
    let step = if every_byte() { 1 } else { 1_511 };
    let (mut refused, mut whole_ones, mut altered) = (0, 0, 0);
    for at in (0..file.len()).step_by(step) {
        let mut turned = file.clone();
        turned[at] ^= 1 << (at % 8);
        match look(&turned, &[]).await.1 {
            Err(said) => {
                assert!(!said.contains("panicked"), "{at}: {said}");
                refused += 1;
            }
            Ok(found) => {
                assert!(found.len() + 1 >= COUNT, "{at}: {:?}", found.keys());
                assert!(intact(&found) + 1 >= COUNT, "{at}: more than one is altered");
                whole_ones += usize::from(intact(&found) == COUNT);
                altered += usize::from(intact(&found) < COUNT);
            }
        }
    }
    println!("{refused} refused, {whole_ones} whole, {altered} altered");
    assert!(refused > 0 && whole_ones > 0, "{refused} refused, {whole_ones} whole");
}

#[tokio::test]
async fn d7_without_its_log_it_is_as_it_was_before_and_without_its_file_it_is_refused() {
    let (file, log) = crashed().await;
    let (_folder, found) = look(&file, &[]).await;
    assert!(is_first(&found.expect("it opens")), "what was folded in is there");
    let (folder, refused) = look(&[], &log).await;
    let said = refused.expect_err("a log without its file");
    assert!(said.contains("q.db-wal"), "{said}");
    let kept = std::fs::read(log_of(&folder.path().join("q.db"))).expect("it is still there");
    assert!(kept == log, "it was written to");
}
