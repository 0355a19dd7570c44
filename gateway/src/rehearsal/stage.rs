//! The stage: one route, built as in earnest, with a script where the network would be.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use tidegate_adapters::{
    AttemptResult, Gate,
    clock::{self, Stopped},
    expression::Template,
    http::{
        Api, Hook, HttpTargetConfig,
        caller::{
            Caller, HttpTarget,
            script::{Script, Sent},
        },
    },
    rabbitmq::{PublishError, PublishTarget},
};

use crate::{
    config::{Config, RouteConfig, ScriptedAnswer, Source, Target, TestConfig},
    delivery::{
        self,
        intake::Judge,
        reply::{ReplyRule, reply_route},
    },
};

const KNOWN: &str = "the loader checked that what is named is there";

/// One route and its script.
pub(super) struct Stage<'c> {
    pub(super) name: Arc<str>,
    pub(super) route: &'c RouteConfig,
    /// Of a webhook route.
    pub(super) hook: Option<Hook>,
    /// What the senders of webhooks call, without a path.
    pub(super) public_url: String,
    pub(super) judge: Judge,
    pub(super) way_out: WayOut,
    pub(super) reply: Option<(ReplyRule, PublishTarget)>,
    pub(super) script: Arc<Answers>,
    pub(super) clock: Stopped,
}

/// What renders the calls, and where they go.
pub(super) struct WayOut {
    pub(super) target: delivery::Target,
    pub(super) limit_keys: Vec<Option<Template>>,
    /// Of an HTTP target, with how long it may take.
    pub(super) caller: Option<(Caller, Duration)>,
}

impl<'c> Stage<'c> {
    /// The stage of `test`, by `clock`.
    ///
    /// # Errors
    /// What cannot be built, in one sentence.
    pub(super) fn new(
        config: &'c Config,
        test: &TestConfig,
        clock: Stopped,
    ) -> Result<Self, String> {
        let name = Arc::clone(&test.route);
        let route = config.routes.get(&name).expect(KNOWN);
        let script = Arc::new(Answers::new(test.answers.clone()));
        let hook = match &route.from {
            Source::Webhook(webhook) => {
                Some(Hook::new(Arc::clone(&name), webhook).map_err(|error| error.to_string())?)
            }
            Source::Rabbitmq(_) | Source::Reply(_) => None,
        };
        let public_url = config.settings.server.public_url.as_ref();
        let public_url = public_url.map_or("", |url| url.as_str().trim_end_matches('/'));
        let way_out = match &route.to {
            Target::Http(target) => http(config, route, target, &script)?,
            Target::Rabbitmq(target) => WayOut {
                target: delivery::Target::Rabbitmq(PublishTarget::new(
                    target,
                    config.mask.clone(),
                )?),
                limit_keys: Vec::new(),
                caller: None,
            },
        };
        let reply = match &route.reply {
            None => None,
            Some(reply) => {
                let target = PublishTarget::new(&reply.to, config.mask.clone())?;
                Some((ReplyRule::new(&name, reply), target))
            }
        };
        Ok(Self {
            judge: Judge::new(&name, route.when.clone(), route.order_by.clone()),
            public_url: public_url.to_owned(),
            name,
            route,
            hook,
            way_out,
            reply,
            script,
            clock,
        })
    }

    /// The name of the route that its replies take.
    pub(super) fn reply_route(&self) -> Arc<str> {
        reply_route(&self.name)
    }
}

fn http(
    config: &Config,
    route: &RouteConfig,
    target: &HttpTargetConfig,
    script: &Arc<Answers>,
) -> Result<WayOut, String> {
    let upstream = config.upstreams.get(&*target.upstream).expect(KNOWN);
    let api = Api::new(&upstream.api, 1, config.mask.clone(), clock::now);
    let api = api.map_err(|error| error.to_string())?;
    let api = Arc::new(api.scripted(Arc::clone(script) as Arc<dyn Script>));
    let mut rendered = HttpTarget::new(target, Arc::clone(&api), route.retry.retry_after_max)
        .map_err(|error| error.to_string())?;
    if route.reply.is_some() {
        rendered = rendered.with_reply();
    }
    Ok(WayOut {
        target: delivery::Target::Http(rendered),
        limit_keys: upstream.rate_limit.iter().map(|limit| limit.key.clone()).collect(),
        caller: Some((Caller::new(api), upstream.timeout)),
    })
}

// ===== the script =====

/// Who answers in the network's stead, and notes down what was sent.
#[derive(Debug)]
pub(super) struct Answers {
    /// Whether anything was written; else each delivery has one answer, a yes.
    written: bool,
    left: Mutex<VecDeque<ScriptedAnswer>>,
    sent: Mutex<Vec<Sent>>,
}

impl Answers {
    fn new(answers: Option<Vec<ScriptedAnswer>>) -> Self {
        let written = answers.is_some();
        let left = Mutex::new(answers.unwrap_or_default().into());
        Self { written, left, sent: Mutex::default() }
    }

    /// Another delivery begins.
    pub(super) fn begin(&self) {
        if !self.written {
            *self.left.lock() = VecDeque::from([ScriptedAnswer::default()]);
        }
    }

    /// How many answers are left.
    pub(super) fn left(&self) -> usize {
        self.left.lock().len()
    }

    /// Everything that was sent.
    pub(super) fn take_sent(&self) -> Vec<Sent> {
        std::mem::take(&mut *self.sent.lock())
    }

    /// What RabbitMQ says to a message.
    ///
    /// # Errors
    /// The fault that is written.
    pub(super) fn confirm(&self) -> Result<(), PublishError> {
        match self.next().fault.as_deref() {
            None => Ok(()),
            Some("unroutable") => Err(PublishError::Unroutable),
            Some("nack") => Err(PublishError::Nacked),
            Some(fault) => Err(PublishError::Ambiguous(format!("{fault} by the script"))),
        }
    }

    /// A request that is sent again within one attempt may find the script at its end: then the
    /// answer is a yes.
    fn next(&self) -> ScriptedAnswer {
        self.left.lock().pop_front().unwrap_or_default()
    }
}

impl Script for Answers {
    fn answer(&self, request: Sent) -> Result<http::Response<Bytes>, AttemptResult> {
        self.sent.lock().push(request);
        let answer = self.next();
        if let Some(fault) = &answer.fault {
            let result = AttemptResult::ALL.into_iter().find(|result| result.as_str() == fault);
            return Err(result.unwrap_or(AttemptResult::Protocol));
        }
        let (body, content_type) = match (&answer.body, &answer.raw) {
            (Some(body), _) => (body.to_string(), Some("application/json")),
            (None, raw) => (raw.clone().unwrap_or_default(), None),
        };
        let mut response = http::Response::new(Bytes::from(body));
        let status = answer.status.and_then(|status| StatusCode::from_u16(status).ok());
        *response.status_mut() = status.unwrap_or(StatusCode::OK);
        *response.headers_mut() = headers(&answer.headers);
        if let Some(content_type) = content_type {
            let entry = response.headers_mut().entry(header::CONTENT_TYPE);
            entry.or_insert(HeaderValue::from_static(content_type));
        }
        Ok(response)
    }
}

/// Headers that the loader has looked at.
pub(super) fn headers(written: &BTreeMap<String, String>) -> HeaderMap {
    let typed = written.iter().filter_map(|(name, value)| {
        Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
    });
    typed.collect()
}

/// There is no rate that anybody could break.
#[derive(Debug)]
pub(super) struct Open;

impl Gate for Open {
    fn pass(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn pass_again(&self) -> BoxFuture<'_, ()> {
        self.pass()
    }

    fn waited(&self) -> Duration {
        Duration::ZERO
    }
}
