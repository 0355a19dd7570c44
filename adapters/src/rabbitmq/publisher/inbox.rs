//! What is to be published, window by window.

use std::collections::{HashSet, VecDeque};

use tokio::sync::mpsc;

use super::{Job, PublishError, WINDOW};

/// Bytes after which a window is not filled further; a larger message has one of its own.
const WINDOW_BYTES: usize = 8 << 20;

/// Jobs looked at for a window at most: those of several exchanges wait side by side.
const AHEAD: usize = 2 * WINDOW;

/// The jobs of all callers. Its windows are shared out among the channels: what does not fit into
/// one of them waits here, where the next channel that is free finds it first.
pub(super) struct Inbox {
    receiver: mpsc::Receiver<Job>,
    held: VecDeque<Job>,
}

impl Inbox {
    pub(super) fn new(receiver: mpsc::Receiver<Job>) -> Self {
        Self { receiver, held: VecDeque::new() }
    }

    /// The next window, of at least one job; empty when nobody publishes any more. Dropped while
    /// it waits, it has taken nothing.
    pub(super) async fn window(&mut self) -> Vec<Job> {
        if self.held.is_empty() {
            let Some(job) = self.receiver.recv().await else { return Vec::new() };
            self.held.push_back(job);
        }
        while self.held.len() < AHEAD
            && let Ok(job) = self.receiver.try_recv()
        {
            self.held.push_back(job);
        }
        take_window(&mut self.held)
    }

    /// Tells all who still wait that nothing was sent; no more are taken.
    pub(super) fn close(&mut self) {
        self.receiver.close();
        while let Some(job) = self.held.pop_front().or_else(|| self.receiver.try_recv().ok()) {
            let _ = job.answer.send(Err(PublishError::Unavailable("shutting down".to_owned())));
        }
    }
}

/// The oldest job, and those behind it that can go with it. They are of one exchange: RabbitMQ
/// answers one that it will not have by closing the channel, and that must not be the others'. And
/// each has an id of its own, or a return could be of either.
fn take_window(held: &mut VecDeque<Job>) -> Vec<Job> {
    let (mut window, mut bytes, mut ids) = (Vec::<Job>::new(), 0, HashSet::new());
    for job in std::mem::take(held) {
        let size = job.message.body.len();
        let fits = window.first().is_none_or(|first| {
            let room = window.len() < WINDOW && bytes + size <= WINDOW_BYTES;
            room && first.exchange == job.exchange && !ids.contains(&job.message.id)
        });
        if fits {
            bytes += size;
            ids.insert(job.message.id.clone());
            window.push(job);
        } else {
            held.push_back(job);
        }
    }
    window
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use lapin::BasicProperties;
    use tokio::sync::oneshot;

    use super::*;
    use crate::rabbitmq::publisher::leaf::Message;

    type Answer = oneshot::Receiver<Result<(), PublishError>>;

    fn job(exchange: &str, id: &str, size: usize) -> (Job, Answer) {
        let (answer, answered) = oneshot::channel();
        let body = Bytes::from(vec![b'x'; size]);
        let message = Message { id: id.to_owned(), body, properties: BasicProperties::default() };
        let (key, declare) = (String::new(), true);
        (Job { exchange: exchange.into(), key, declare, message, answer }, answered)
    }

    fn windows(jobs: &[(&str, &str, usize)]) -> Vec<Vec<String>> {
        let mut held = jobs.iter().map(|(exchange, id, size)| job(exchange, id, *size).0).collect();
        let mut windows = Vec::new();
        loop {
            let window = take_window(&mut held);
            if window.is_empty() {
                return windows;
            }
            windows.push(window.into_iter().map(|job| job.message.id).collect());
        }
    }

    #[test]
    fn a_window_is_of_one_exchange_and_no_id_is_in_it_twice() {
        let jobs = [("a", "1", 1), ("b", "1", 1), ("a", "2", 1), ("a", "1", 1), ("b", "2", 1)];
        assert_eq!(windows(&jobs), [vec!["1", "2"], vec!["1", "2"], vec!["1"]]);
    }

    #[test]
    fn a_window_has_a_limit_in_messages_and_in_bytes() {
        let ids: Vec<String> = (0..WINDOW + 1).map(|n| n.to_string()).collect();
        let jobs: Vec<_> = ids.iter().map(|id| ("a", id.as_str(), 1)).collect();
        let sizes: Vec<usize> = windows(&jobs).iter().map(Vec::len).collect();
        assert_eq!(sizes, [WINDOW, 1]);
        let large = WINDOW_BYTES + 1;
        let jobs = [("a", "1", 1), ("a", "2", large), ("a", "3", 1), ("a", "4", WINDOW_BYTES)];
        assert_eq!(windows(&jobs), [vec!["1", "3"], vec!["2"], vec!["4"]]);
    }

    #[tokio::test]
    async fn who_still_waits_at_the_end_hears_that_nothing_was_sent() {
        let (jobs, receiver) = mpsc::channel(4);
        let mut inbox = Inbox::new(receiver);
        let mut answers = Vec::new();
        for exchange in ["a", "b", "a"] {
            let (job, answer) = job(exchange, "1", 1);
            jobs.try_send(job).unwrap();
            answers.push(answer);
        }
        let window = inbox.window().await;
        assert_eq!(window.len(), 1, "the others are held");
        let (late, answer) = job("a", "2", 1);
        jobs.try_send(late).unwrap();
        answers.push(answer);
        inbox.close();
        assert!(jobs.is_closed());
        drop(window);
        let mut unsent = 0;
        for answer in answers {
            unsent += usize::from(matches!(answer.await, Ok(Err(PublishError::Unavailable(_)))));
        }
        assert_eq!(unsent, 3);
    }
}
