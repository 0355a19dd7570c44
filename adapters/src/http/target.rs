//! What a route sends: renders events into requests. Pure; the wire is [`super::caller`]'s.

mod body;
mod path;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use url::Url;

use super::{
    BodyConfig, ConfigError, Encode, HttpRequest, HttpTargetConfig, USER_AGENT,
    caller::{AnswerRules, Api, Progress, route_headers},
    header_name,
};
use crate::{
    DeadReason, Delivery, Event, Exchange, Failure, Health, Verdict,
    event::Data,
    expression::{ExpressionError, Input, Place, Rendering, Template},
};

/// The longest URL that is sent, in bytes: what the HTTP client can carry.
const URL_MAX: usize = 65_534;

/// The HTTP target of one route.
#[derive(Debug)]
pub struct HttpTarget {
    api: Arc<Api>,
    method: Method,
    path: Option<Template>,
    query: Vec<(String, Template)>,
    headers: Vec<(HeaderName, Template)>,
    body: Body,
    encode: Encode,
    idempotency_header: Option<HeaderName>,
    answer: Arc<AnswerRules>,
}

/// Where the body comes from, the method considered.
#[derive(Debug)]
enum Body {
    None,
    Data,
    Expression(crate::expression::Expression),
}

impl HttpTarget {
    /// The target of a route that calls `api`; no wait that an answer asks for is heeded beyond
    /// `retry_after_max`.
    ///
    /// # Errors
    /// Whatever in `config` cannot work, with its key.
    pub fn new(
        config: &HttpTargetConfig,
        api: Arc<Api>,
        retry_after_max: Duration,
    ) -> Result<Self, ConfigError> {
        let headers = route_headers("headers", &config.headers, &api.auth)?;
        let idempotency_header = config
            .idempotency_header
            .as_deref()
            .map(|name| header_name("idempotency_header", name))
            .transpose()?;
        if let Some(name) = &idempotency_header {
            let taken = headers.iter().chain(&api.headers).any(|(header, _)| header == name);
            if taken || api.auth.sets(name) {
                let problem = format!("`{name}` is set elsewhere too: write another name, or off");
                return Err(ConfigError::new("idempotency_header", problem));
            }
        }
        if matches!(config.method, Method::CONNECT | Method::TRACE) {
            let problem = format!("{} is not a request to an API", config.method);
            return Err(ConfigError::new("method", problem));
        }
        if let Some(path) = &config.path {
            path::check_template(path)?;
        }
        let answer =
            AnswerRules::new(config, api.retry_after.clone(), retry_after_max, api.mask.clone());
        Ok(Self {
            method: config.method.clone(),
            path: config.path.clone(),
            query: config.query.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            headers,
            body: body_of(config),
            encode: config.encode,
            idempotency_header,
            answer: Arc::new(answer),
            api,
        })
    }

    /// The same target, handing on the answers it gets, for the route's reply.
    ///
    /// # Panics
    /// When it has rendered already.
    #[must_use]
    pub fn with_reply(mut self) -> Self {
        let rules = Arc::get_mut(&mut self.answer);
        rules.expect("nothing shares the rules before the first rendering").keep_for_reply();
        self
    }

    /// Renders attempt number `attempt` (1 for the first) of `delivery`, whose event is `input`.
    /// No network, no clock.
    ///
    /// # Errors
    /// When an expression or template fails on this event: dead `expression`, not an attempt.
    pub fn prepare(
        &self,
        delivery: &Arc<Delivery>,
        attempt: u32,
        input: &Input,
    ) -> Result<HttpRequest, Failure> {
        let rendering = Rendering::new(delivery, attempt, input);
        self.render(&rendering).map_err(|problem| self.unrenderable(&problem))
    }

    fn render(&self, rendering: &Rendering<'_>) -> Result<HttpRequest, Problem> {
        let body = self.render_body(rendering)?;
        let mut headers = HeaderMap::with_capacity(8);
        if let Some((kind, _)) = &body {
            headers.insert(header::CONTENT_TYPE, kind.clone());
        }
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        for (name, template) in self.api.headers.iter().chain(&self.headers) {
            let key = || format!("headers.{name}");
            if let Some(value) = render(rendering, key, template, Place::Header)? {
                let value = HeaderValue::from_bytes(value.as_bytes())
                    .map_err(|_| Problem::new(key(), "does not fit into a header"))?;
                headers.insert(name, value);
            }
        }
        if let Some(name) = &self.idempotency_header {
            let key = rendering.delivery.idempotency_key().to_string();
            headers.insert(name, HeaderValue::try_from(key).expect("a UUID is ASCII"));
        }
        Ok(HttpRequest {
            method: self.method.clone(),
            url: self.render_url(rendering)?,
            headers,
            body: body.map(|(_, bytes)| bytes).unwrap_or_default(),
            answer: Arc::clone(&self.answer),
            progress: Progress::default(),
        })
    }

    fn render_url(&self, rendering: &Rendering<'_>) -> Result<Url, Problem> {
        let mut url = self.api.url.clone();
        if let Some(template) = &self.path {
            let path = render(rendering, || "path".to_owned(), template, Place::Path)?;
            path::append(&mut url, &path.unwrap_or_default())
                .map_err(|problem| Problem::new("path", problem))?;
        }
        for (name, template) in &self.query {
            let value = render(rendering, || format!("query.{name}"), template, Place::Query)?;
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, &value);
            }
        }
        if url.as_str().len() > URL_MAX {
            let problem = format!("makes a URL of {} bytes; {URL_MAX} at most", url.as_str().len());
            return Err(Problem::new("path", problem));
        }
        Ok(url)
    }

    /// Content type and bytes; `None` for no body at all.
    fn render_body(
        &self,
        rendering: &Rendering<'_>,
    ) -> Result<Option<(HeaderValue, Bytes)>, Problem> {
        let event = &rendering.delivery.event;
        let json = match &self.body {
            Body::None => return Ok(None),
            Body::Data => match (&event.data, self.encode) {
                (Data::Absent, _) => return Ok(None),
                (Data::Json(bytes), Encode::Json) => {
                    return passed_through(event, "application/json", bytes).map(Some);
                }
                (Data::Binary(bytes), Encode::Json) => {
                    return passed_through(event, "application/octet-stream", bytes).map(Some);
                }
                (Data::Binary(bytes), Encode::Text) if std::str::from_utf8(bytes).is_ok() => {
                    return Ok(Some((self.encode.content_type(), bytes.clone())));
                }
                (Data::Binary(_), Encode::Form | Encode::Text) => {
                    return Err(Problem::new("body", "cannot be encoded: the data is binary"));
                }
                (Data::Json(bytes), Encode::Form | Encode::Text) => bytes.clone(),
            },
            Body::Expression(expression) => {
                let output = rendering.run(expression);
                output.map_err(|error| Problem::of("body", &error))?.to_json()
            }
        };
        let bytes = match self.encode {
            Encode::Json => json,
            Encode::Form => body::form(&json).map_err(|problem| Problem::new("body", problem))?,
            Encode::Text => body::text(&json).map_err(|problem| Problem::new("body", problem))?,
        };
        Ok(Some((self.encode.content_type(), bytes)))
    }

    fn unrenderable(&self, problem: &Problem) -> Failure {
        Failure {
            result: None,
            verdict: Verdict::Dead(DeadReason::Expression),
            health: Health::Silent,
            throttle: None,
            detail: self.api.mask.apply(&format!("{}: {}", problem.key, problem.problem)),
            exchange: Exchange::default(),
            response: None,
        }
    }
}

/// Why a request cannot be rendered.
struct Problem {
    key: String,
    problem: String,
}

impl Problem {
    fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into() }
    }

    fn of(key: impl Into<String>, error: &ExpressionError) -> Self {
        Self::new(key, error.to_string())
    }
}

/// Renders what the configuration has under `key`.
fn render(
    rendering: &Rendering<'_>,
    key: impl FnOnce() -> String,
    template: &Template,
    place: Place,
) -> Result<Option<String>, Problem> {
    rendering.render(template, place).map_err(|error| Problem::of(key(), &error))
}

/// GET, HEAD, DELETE and OPTIONS say it all with their URL: a body they get only where one is
/// asked for (RFC 9110 §9.3.1: content in a GET has no defined meaning).
fn body_of(config: &HttpTargetConfig) -> Body {
    let bodiless = [Method::GET, Method::HEAD, Method::DELETE, Method::OPTIONS];
    match &config.body {
        BodyConfig::Empty => Body::None,
        BodyConfig::Data if bodiless.contains(&config.method) => Body::None,
        BodyConfig::Data => Body::Data,
        BodyConfig::Expression(expression) => Body::Expression(expression.clone()),
    }
}

/// Data as it came, under the type it came with.
fn passed_through(
    event: &Event,
    default: &'static str,
    bytes: &Bytes,
) -> Result<(HeaderValue, Bytes), Problem> {
    let kind = match &event.datacontenttype {
        None => HeaderValue::from_static(default),
        Some(kind) => HeaderValue::from_str(kind)
            .map_err(|_| Problem::new("body", "datacontenttype does not fit into a header"))?,
    };
    Ok((kind, bytes.clone()))
}

#[cfg(test)]
mod tests;
