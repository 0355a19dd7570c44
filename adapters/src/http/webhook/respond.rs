//! What the sender of a taken request hears.
//!
//! ```text
//! `respond:` ─► the provider's own answer ─► 202 {"id": …} or {"ids": […]}
//! ```
//!
//! It is ready before the intake is asked. A `respond` that fails is no reason to send the request
//! again, so its sender hears the usual body under the status it asked for, and the log has why.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::json;

use super::{Answer, RespondConfig, events::Events};
use crate::{
    event::attribute::is_json,
    expression::{Expression, ExpressionError, Input, Place, Template, Variables},
    http::{ConfigError, header_name},
};

/// `respond:`, ready.
#[derive(Debug)]
pub(super) struct Respond {
    status: StatusCode,
    headers: Vec<(HeaderName, Template)>,
    body: Option<Expression>,
    /// Whether it failed the last time: the log hears of changes.
    failing: AtomicBool,
}

/// The answer without `respond` and without a provider's own.
pub(super) fn usual(events: &Events) -> Answer {
    let body = match (events.many, &*events.ids) {
        (false, [id]) => json!({ "id": id }),
        (_, ids) => json!({ "ids": ids }),
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Answer { status: StatusCode::ACCEPTED, headers, body: body.to_string().into() }
}

impl Respond {
    /// # Errors
    /// A status that is no yes, a header that cannot be set, a body where there can be none.
    pub(super) fn new(config: &RespondConfig) -> Result<Self, ConfigError> {
        let status = StatusCode::from_u16(config.status).ok();
        let status = status.filter(StatusCode::is_success).ok_or_else(|| {
            let problem = format!("{} is no yes: write a status from 200 to 299", config.status);
            ConfigError::new("respond.status", problem)
        })?;
        if is_empty(status) && config.body.is_some() {
            let problem = format!("an answer with status {status} has no body: write 200");
            return Err(ConfigError::new("respond.body", problem));
        }
        let headers = config.headers.iter().map(|(name, template)| {
            let key = format!("respond.headers.{name}");
            template
                .check_place(Place::Header)
                .map_err(|error| ConfigError::new(&*key, error.to_string()))?;
            Ok((header_name(&key, name)?, template.clone()))
        });
        Ok(Self {
            status,
            headers: headers.collect::<Result<_, _>>()?,
            body: config.body.clone(),
            failing: AtomicBool::new(false),
        })
    }

    /// The answer to the request that `input` is of, where `usual` is what it would be otherwise.
    pub(super) fn answer(&self, usual: Answer, input: &Input, variables: &Variables) -> Answer {
        let rendered = self.render(&usual, input, variables);
        let failed = rendered.is_err();
        let changed = self.failing.swap(failed, Ordering::Relaxed) != failed;
        let route = &*variables.route;
        let mut answer = match rendered {
            Ok(answer) => {
                if changed {
                    tracing::info!(route, "`respond` works again");
                }
                answer
            }
            Err(error) => {
                if changed {
                    tracing::warn!(route, %error, "`respond` failed; senders get the usual answer");
                }
                Answer { status: self.status, ..usual }
            }
        };
        if is_empty(self.status) {
            answer.body = Bytes::new();
            answer.headers.remove(header::CONTENT_TYPE);
        }
        answer
    }

    fn render(
        &self,
        usual: &Answer,
        input: &Input,
        variables: &Variables,
    ) -> Result<Answer, ExpressionError> {
        let mut answer = Answer { status: self.status, ..usual.clone() };
        if self.body.is_some() {
            answer.headers.remove(header::CONTENT_TYPE);
        }
        for (name, template) in &self.headers {
            if let Some(value) = template.render(input, variables, Place::Header)? {
                let value = HeaderValue::from_bytes(value.as_bytes());
                let value = value.map_err(|_| ExpressionError::new("came out as no header"))?;
                answer.headers.insert(name.clone(), value);
            }
        }
        let Some(body) = &self.body else { return Ok(answer) };
        let output = body.run(input, variables)?;
        let content_type = answer
            .headers
            .entry(header::CONTENT_TYPE)
            .or_insert_with(|| HeaderValue::from_static("application/json"));
        let json = content_type.to_str().is_ok_and(is_json);
        answer.body = match output.as_text() {
            Some(text) if !json => text.into(),
            _ => output.to_json(),
        };
        Ok(answer)
    }
}

/// Answers that have no body whatever happens (RFC 9110, §15.3.5 and §15.3.6).
fn is_empty(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT)
}
