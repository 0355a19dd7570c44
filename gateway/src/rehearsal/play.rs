//! The play: from what a route is given to everything that comes of it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;
use tidegate_adapters::{
    Accepted, Arrival, AttemptResult, Call, DeadReason, Delivery, DeliveryId, Event, Failure,
    Receipt, Request, Timestamp,
    event::message,
    expression::Input,
    http::{
        Hook,
        caller::script::Sent,
        receiver::{Rehearsed, rehearse},
        verify::sender,
        webhook::{Answer, Received, Reply},
    },
    rabbitmq::publisher::{self, Published},
};
use tower::ServiceExt as _;

use super::{
    given,
    stage::{Open, Stage},
};
use crate::{
    config::{Given, ReplyOn, Source, TestConfig},
    delivery::{
        prepare,
        reply::End,
        schedule::{self, Moment},
    },
    protect::quiet_for,
    queue::{Content, Outcome},
};

/// The middle of chance: no wait is stretched or shrunk.
const NO_JITTER: f64 = 0.5;

/// Everything that came of it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// What a webhook's sender hears.
    pub(super) answer: Option<Answer>,
    /// Of each event, in order.
    pub(super) ends: Vec<Ended>,
    /// Whether a webhook was turned away.
    pub(super) refused: bool,
    /// In order.
    pub(super) requests: Vec<Sent>,
    /// In order, replies behind what they are about.
    pub(super) published: Vec<(Published, Value)>,
    /// In order.
    pub(super) waits: Vec<Duration>,
    /// Why things ended as they did.
    pub(super) notes: Vec<String>,
}

/// What became of one event.
#[derive(Debug)]
pub(super) struct Ended {
    /// The word for it.
    pub(super) outcome: &'static str,
    /// Why it is dead.
    pub(super) reason: Option<DeadReason>,
    /// Its order key.
    pub(super) key: Option<Arc<str>>,
}

/// A delivery on its way, and all that is seen of it.
struct Player<'s> {
    stage: &'s Stage<'s>,
    seen: Mutex<Seen>,
}

/// Plays `test` on `stage`, by the stage's clock.
pub(super) async fn play(stage: &Stage<'_>, test: &TestConfig) -> Seen {
    let player = Player { stage, seen: Mutex::default() };
    let Some((arrivals, reply)) = player.arrivals(&test.given) else {
        return player.seen.into_inner();
    };
    let mut accepted = Vec::with_capacity(arrivals.len());
    let mut pending = Vec::new();
    for (n, arrival) in (1..).zip(arrivals) {
        accepted.push(player.accept(DeliveryId(n), arrival, &mut pending));
    }
    if let Some(reply) = reply {
        player.seen.lock().answer = Some(reply.answer(&accepted));
    }
    for (at, delivery) in pending {
        let (outcome, reason) = player.deliver(delivery).await;
        let mut seen = player.seen.lock();
        (seen.ends[at].outcome, seen.ends[at].reason) = (outcome, reason);
    }
    let mut seen = player.seen.into_inner();
    seen.requests = stage.script.take_sent();
    seen
}

impl Player<'_> {
    fn now(&self) -> Timestamp {
        self.stage.clock.now()
    }

    fn note(&self, note: impl Into<String>) {
        self.seen.lock().notes.push(note.into());
    }

    /// What arrives, and what a webhook's sender is going to hear. `None`: nothing does.
    fn arrivals(&self, given: &Given) -> Option<(Vec<Arrival>, Option<Reply>)> {
        match (&self.stage.route.from, &self.stage.hook) {
            (Source::Webhook(config), Some(hook)) => {
                let mut request =
                    given::request(given, hook.path(), &self.stage.public_url, self.now());
                let sign = !matches!(given, Given::Webhook(webhook) if !webhook.sign);
                if sign {
                    sender::sign(&config.verify, &mut request, self.now());
                }
                self.webhook(hook, &request)
            }
            (Source::Rabbitmq(config), _) => {
                let exchange = config.bind.first().map(|bind| bind.exchange.clone());
                let message = given::message(given, exchange.unwrap_or_default(), self.now());
                let arrival = message::read(&message, &self.stage.name, &config.event, self.now());
                Some((vec![arrival], None))
            }
            (Source::Webhook(_) | Source::Reply(_), _) => None,
        }
    }

    fn webhook(&self, hook: &Hook, request: &Received) -> Option<(Vec<Arrival>, Option<Reply>)> {
        let mut seen = self.seen.lock();
        match rehearse(hook, request, self.now()) {
            Rehearsed::Read(reading) => return Some((reading.arrivals, Some(reading.reply))),
            Rehearsed::Handshake(answer) => seen.answer = Some(answer),
            Rehearsed::Refused(answer) => {
                let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                let detail = problem["detail"].as_str().unwrap_or_default();
                seen.notes.push(format!("answered {}: {detail}", answer.status));
                seen.refused = true;
                seen.answer = Some(answer);
            }
        }
        None
    }

    /// What is decided on arrival; a delivery goes to `pending`, with its place among the ends.
    fn accept(
        &self,
        id: DeliveryId,
        arrival: Arrival,
        pending: &mut Vec<(usize, Delivery)>,
    ) -> Accepted {
        let (content, key) = match arrival.event {
            Ok(event) => self.stage.judge.judge(Arc::new(event)),
            Err(invalid) => (Content::Invalid(invalid), None),
        };
        let ended = |outcome, reason| Ended { outcome, reason, key: key.clone() };
        let (accepted, ended) = match content {
            Content::Pending(event) => {
                let at = self.seen.lock().ends.len();
                pending.push((at, self.delivery(id, &self.stage.name, event, key.clone())));
                (Accepted::Pending(id), ended("pending", None))
            }
            Content::Filtered(_) => (Accepted::Filtered, ended("filtered", None)),
            Content::Dead(_, reason, why) => {
                self.note(why);
                (Accepted::Dead(id), ended("dead", Some(reason)))
            }
            Content::Invalid(invalid) => {
                self.note(invalid.why);
                (Accepted::Dead(id), ended("dead", Some(DeadReason::Invalid)))
            }
        };
        self.seen.lock().ends.push(ended);
        accepted
    }

    fn delivery(
        &self,
        id: DeliveryId,
        route: &Arc<str>,
        event: Arc<Event>,
        key: Option<Arc<str>>,
    ) -> Delivery {
        let (route, now) = (Arc::clone(route), self.now());
        Delivery {
            id,
            route,
            event,
            key,
            accepted_at: now,
            due_at: now,
            attempts: 0,
            tries: 0,
            first_attempt_at: None,
        }
    }

    /// Attempt after attempt, until it ends or the script does.
    async fn deliver(&self, delivery: Delivery) -> (&'static str, Option<DeadReason>) {
        self.stage.script.begin();
        let mut delivery = Arc::new(delivery);
        let mut throttled = 0;
        loop {
            let left = self.stage.script.left();
            if left == 0 {
                return ("pending", None);
            }
            let began = self.now();
            let failure = match self.attempt(&delivery).await {
                Ok(receipt) => {
                    let response = receipt.response.as_ref();
                    self.reply(&delivery, ReplyOn::Delivered, None, response);
                    return ("delivered", None);
                }
                Err(failure) => failure,
            };
            self.take_time(&failure);
            let first_attempt_at = delivery.first_attempt_at.unwrap_or(began);
            let moment =
                Moment { now: self.now(), first_attempt_at, probe: false, chance: NO_JITTER };
            let retry = &self.stage.route.retry;
            match schedule::after_failure(retry, &delivery, &failure, moment) {
                Outcome::Delivered => return ("delivered", None),
                Outcome::Dead { reason, detail } => {
                    self.note(detail);
                    let delivery = Arc::new(tried(&delivery, &failure, delivery.attempts, began));
                    let response = failure.response.as_ref();
                    self.reply(&delivery, ReplyOn::Dead, Some(reason), response);
                    return ("dead", Some(reason));
                }
                Outcome::Retry { at, attempts } => {
                    self.note(format!("attempt {}: {failure}", delivery.tries + 1));
                    self.wait(at, &failure, &mut throttled);
                    delivery = Arc::new(tried(&delivery, &failure, attempts, first_attempt_at));
                }
            }
            // What is refused before it is sent would be so for ever.
            if self.stage.script.left() == left {
                return ("pending", None);
            }
        }
    }

    async fn attempt(&self, delivery: &Arc<Delivery>) -> Result<Receipt, Failure> {
        let way_out = &self.stage.way_out;
        let (request, _) = prepare(&way_out.target, &way_out.limit_keys, delivery)?;
        match (&way_out.caller, request) {
            (Some((caller, _)), request) => {
                let attempt = delivery.tries + 1;
                let call =
                    Call { delivery: Arc::clone(delivery), attempt, request, gate: Arc::new(Open) };
                caller.clone().oneshot(call).await
            }
            (None, Request::Rabbitmq(request)) => {
                publisher::rehearse(&delivery.event, &request, |published| {
                    self.published(published, &delivery.event);
                    self.stage.script.confirm()
                })
            }
            (None, Request::Http(_)) => unreachable!("an HTTP target has its caller"),
        }
    }

    fn published(&self, published: Published, event: &Event) {
        let event = serde_json::from_slice(&event.to_json()).unwrap_or_default();
        self.seen.lock().published.push((published, event));
    }

    /// An attempt that is never answered takes as long as it may.
    fn take_time(&self, failure: &Failure) {
        if let (Some(AttemptResult::Timeout), Some((_, timeout))) =
            (failure.result, &self.stage.way_out.caller)
        {
            self.stage.clock.set(self.now().after(*timeout));
        }
    }

    /// Waits until `at`, and until the quiet is over that was asked for.
    fn wait(&self, at: Timestamp, failure: &Failure, throttled: &mut u32) {
        let now = self.now();
        let at = match failure.throttle {
            None => at,
            Some(throttle) => {
                *throttled += 1;
                at.max(now.after(quiet_for(throttle.after, *throttled - 1)))
            }
        };
        self.seen.lock().waits.push(at.since(now));
        self.stage.clock.set(at);
    }

    /// What is said of an end, published as the route of the reply does.
    fn reply(
        &self,
        delivery: &Delivery,
        outcome: ReplyOn,
        reason: Option<DeadReason>,
        response: Option<&Bytes>,
    ) {
        let Some((rule, target)) = &self.stage.reply else { return };
        let attempt = match outcome {
            ReplyOn::Delivered => delivery.tries + 1,
            ReplyOn::Dead => delivery.tries,
        };
        let end = End { outcome, reason, response, attempt, trace: None };
        let Some(reply) = rule.make(delivery, end, self.now()) else { return };
        let event = match reply.append.content {
            Content::Pending(event) => event,
            Content::Dead(_, reason, why) => {
                return self.note(format!("the reply is dead ({}): {why}", reason.as_str()));
            }
            Content::Filtered(_) | Content::Invalid(_) => return,
        };
        let route = self.stage.reply_route();
        let reply = self.delivery(delivery.id, &route, Arc::clone(&event), None);
        let input = Input::event(Arc::clone(&event));
        let sent = target.prepare(&Arc::new(reply), 1, &input).and_then(|request| {
            publisher::rehearse(&event, &request, |published| {
                self.published(published, &event);
                Ok(())
            })
        });
        if let Err(failure) = sent {
            self.note(format!("the reply is not published: {failure}"));
        }
    }
}

/// `delivery` after one more attempt, if it was one.
fn tried(delivery: &Delivery, failure: &Failure, attempts: u32, first: Timestamp) -> Delivery {
    let tries = delivery.tries + u32::from(failure.result.is_some());
    Delivery { attempts, tries, first_attempt_at: Some(first), ..delivery.clone() }
}
