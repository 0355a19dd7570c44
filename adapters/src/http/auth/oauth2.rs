//! OAuth 2.0 client credentials (RFC 6749 §4.4): one token, shared by all calls to an upstream.
//!
//! ```text
//!            fetch ok                    refresh_at passed
//!   none ───────────────► fresh ─────────────────────────► ageing ──┐ one call renews,
//!    ▲ │ fetch failed:      ▲                                │      │ the others go on
//!    │ └ every waiter       └────────── renewed ─────────────┤      │ with the old one
//!    │   fails with it                                       ◄──────┘
//!    └──────────── expires_at passed, or the API answered 401 to it
//! ```
//!
//! However many calls need a token, one request is under way: the others wait for its end and
//! share it, failure included, or an outage of the token endpoint would be met by a queue of
//! calls trying one after the other. A call that is dropped while fetching (its attempt timed
//! out) hands over to the next in line.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use parking_lot::Mutex;
use tokio::time::Instant;
use url::{Url, form_urlencoded};

use crate::{
    AttemptResult, Timestamp,
    http::{
        ClientAuth, ConfigError, OAuth2Config,
        auth::basic_credentials,
        caller::{
            Client, Progress, Sending,
            network::{self, Broken},
            retry_after,
        },
        egress::{Guard, RefusedAddress},
        literal_address,
    },
    secret::Mask,
};

/// A token is renewed when a fifth of its life is left, but no sooner than this before its end.
const AHEAD_MAX: Duration = Duration::from_secs(60);

/// How long a call that renews ahead of time waits, and after a failure leaves it to others.
const AHEAD_PATIENCE: Duration = Duration::from_secs(2);

/// Longer lives are not believed.
const LIFETIME_MAX: Duration = Duration::from_secs(30 * 86_400);

/// How much of the token endpoint's answer is read.
const ANSWER_MAX: usize = 64 << 10;

/// Fetches and keeps the token of one upstream.
pub(crate) struct OAuth2 {
    client: Client,
    token_url: Url,
    refused: Option<RefusedAddress>,
    headers: HeaderMap,
    form: Bytes,
    lifetime: Duration,
    mask: Mask,
    now: fn() -> Timestamp,
    current: Mutex<Option<Token>>,
    flight: tokio::sync::Mutex<Flight>,
    /// How many fetches have ended; read before waiting for `flight`.
    landed: std::sync::atomic::AtomicU64,
}

/// A token in use.
#[derive(Clone)]
pub(crate) struct Token {
    /// `Bearer …`, marked as sensitive.
    pub(crate) authorization: HeaderValue,
    /// Tells tokens apart, without comparing them.
    pub(crate) generation: u64,
    refresh_at: Instant,
    expires_at: Instant,
}

impl Token {
    /// A token that nobody has given out.
    pub(crate) fn stand_in(generation: u64) -> Self {
        let (authorization, now) = (HeaderValue::from_static("Bearer test-token"), Instant::now());
        Self { authorization, generation, refresh_at: now, expires_at: now }
    }
}

/// What the holder of the fetch lock knows.
#[derive(Default)]
struct Flight {
    /// How the last fetch failed, if it did.
    failed: Option<TokenError>,
    /// No renewal ahead of time before this.
    quiet_until: Option<Instant>,
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no OAuth2 token: {detail}")]
pub(crate) struct TokenError {
    /// `auth` when the endpoint said no, else what the network did.
    pub(crate) result: AttemptResult,
    /// `Retry-After` of the token endpoint.
    pub(crate) after: Option<Duration>,
    /// One sentence, secrets masked.
    pub(crate) detail: String,
}

impl OAuth2 {
    /// Prepares the token request, which `client` sends.
    ///
    /// # Errors
    /// A token URL that is not http or https, or empty credentials.
    pub(crate) fn new(
        config: &OAuth2Config,
        client: Client,
        guard: &Guard,
        mask: &Mask,
        now: fn() -> Timestamp,
    ) -> Result<Self, ConfigError> {
        let problem =
            |key: &str, problem: &str| Err(ConfigError::new(format!("auth.oauth2.{key}"), problem));
        if !matches!(config.token_url.scheme(), "http" | "https") {
            return problem("token_url", "must begin with https:// or http://");
        }
        if !config.token_url.username().is_empty() || config.token_url.password().is_some() {
            return problem("token_url", "holds a user: write client_id and client_secret");
        }
        if config.client_id.is_empty() {
            return problem("client_id", "is empty");
        }
        if config.client_secret.expose().is_empty() {
            return problem("client_secret", "is empty");
        }
        let mut headers = HeaderMap::new();
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(header::CONTENT_TYPE, form_type);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(crate::http::USER_AGENT));
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if !config.scopes.is_empty() {
            form.append_pair("scope", &config.scopes.join(" "));
        }
        form.extend_pairs(&config.params);
        match config.client_auth {
            ClientAuth::Basic => {
                headers.insert(header::AUTHORIZATION, client_credentials(config, mask));
            }
            ClientAuth::Body => {
                form.append_pair("client_id", &config.client_id);
                form.append_pair("client_secret", config.client_secret.expose());
            }
        }
        Ok(Self {
            client,
            token_url: config.token_url.clone(),
            refused: literal_address(&config.token_url).and_then(|ip| guard.check(ip).err()),
            headers,
            form: form.finish().into(),
            lifetime: config.lifetime,
            mask: mask.clone(),
            now,
            current: Mutex::new(None),
            flight: tokio::sync::Mutex::default(),
            landed: std::sync::atomic::AtomicU64::new(0),
        })
    }

    /// A token that is good for a request now; not the one of generation `refused`, to which the
    /// API answered 401.
    ///
    /// # Errors
    /// When there is none and none could be fetched.
    pub(crate) async fn token(&self, refused: Option<u64>) -> Result<Token, TokenError> {
        let landed = self.landed.load(std::sync::atomic::Ordering::Acquire);
        if let Some(token) = self.usable(refused) {
            if Instant::now() < token.refresh_at {
                return Ok(token);
            }
            return Ok(self.renew_ahead(token).await);
        }
        let mut flight = self.flight.lock().await;
        if let Some(token) = self.usable(refused) {
            return Ok(token);
        }
        // A fetch has ended since this call began to wait, and it got no token: that is ours too.
        if landed != self.landed.load(std::sync::atomic::Ordering::Acquire)
            && let Some(failed) = flight.failed.clone()
        {
            return Err(failed);
        }
        let fetched = self.fetch().await;
        flight.failed = fetched.as_ref().err().cloned();
        fetched
    }

    /// Renews `token`, unless somebody else is about it; any failure leaves `token` in use.
    async fn renew_ahead(&self, token: Token) -> Token {
        let Ok(mut flight) = self.flight.try_lock() else { return token };
        let renewed = self.usable(None).filter(|now| now.generation != token.generation);
        if let Some(renewed) = renewed {
            return renewed;
        }
        if flight.quiet_until.is_some_and(|until| Instant::now() < until) {
            return token;
        }
        // Set first: a call dropped in mid-fetch must not make the next one wait as long.
        flight.quiet_until = Some(Instant::now() + AHEAD_PATIENCE);
        match tokio::time::timeout(AHEAD_PATIENCE, self.fetch()).await {
            Ok(Ok(renewed)) => {
                flight.quiet_until = None;
                flight.failed = None;
                renewed
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "token not renewed, the old one is good for a while");
                token
            }
            Err(_) => token,
        }
    }

    fn usable(&self, refused: Option<u64>) -> Option<Token> {
        let current = self.current.lock();
        current
            .as_ref()
            .filter(|token| Some(token.generation) != refused && Instant::now() < token.expires_at)
            .cloned()
    }

    /// One token request. Only the holder of `flight` comes here.
    async fn fetch(&self) -> Result<Token, TokenError> {
        let fetched = self.request().await;
        let landed = self.landed.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
        let (authorization, life) = fetched?;
        let now = Instant::now();
        let token = Token {
            authorization,
            generation: landed,
            refresh_at: now + life - (life / 5).min(AHEAD_MAX),
            expires_at: now + life,
        };
        *self.current.lock() = Some(token.clone());
        Ok(token)
    }

    async fn request(&self) -> Result<(HeaderValue, Duration), TokenError> {
        if let Some(refused) = self.refused {
            let detail = refused.to_string();
            return Err(TokenError { result: AttemptResult::RefusedAddress, after: None, detail });
        }
        let sending = Sending {
            method: &http::Method::POST,
            url: &self.token_url,
            headers: self.headers.clone(),
            body: self.form.clone(),
        };
        let network_error = |broken: Broken| {
            let detail = self.mask.apply(&broken.detail);
            TokenError { result: broken.result, after: None, detail }
        };
        let sent = self.client.send(sending, None, &Progress::default()).await;
        let mut response = sent.map_err(network_error)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await {
            let chunk = chunk.map_err(|_| network_error(network::cut_off()))?;
            if body.len() + chunk.len() > ANSWER_MAX {
                return Err(self.said_no(None, "the token endpoint's answer is too long"));
            }
            body.extend_from_slice(&chunk);
        }
        let answer: TokenAnswer = serde_json::from_slice(&body).unwrap_or_default();
        if !response.status.is_success() {
            let after = retry_after::of_headers(&response.headers, (self.now)());
            let words = [answer.error, answer.error_description].into_iter().flatten();
            let words = words.collect::<Vec<_>>().join(", ");
            let words = if words.is_empty() { String::new() } else { format!(": {words}") };
            let detail = format!("the token endpoint answered {}{words}", response.status);
            return Err(self.said_no(after, &detail));
        }
        self.read(answer)
    }

    /// The authorization header and the life of a token in a 2xx answer (RFC 6749 §5.1).
    fn read(&self, answer: TokenAnswer) -> Result<(HeaderValue, Duration), TokenError> {
        let Some(token) = answer.access_token.filter(|token| !token.is_empty()) else {
            return Err(self.said_no(None, "the token endpoint's answer holds no access_token"));
        };
        self.mask.add_passing(&token);
        if answer.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
            return Err(self.said_no(None, "the token endpoint's token_type is not bearer"));
        }
        let mut authorization = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| self.said_no(None, "the access_token does not fit into a header"))?;
        authorization.set_sensitive(true);
        // A number, in some providers' answers as text.
        let seconds = answer.expires_in.and_then(|value| match value {
            serde_json::Value::String(text) => text.parse().ok(),
            other => other.as_f64(),
        });
        let life =
            seconds.filter(|seconds: &f64| *seconds > 0.0).map_or(self.lifetime, |seconds| {
                Duration::try_from_secs_f64(seconds).unwrap_or(LIFETIME_MAX)
            });
        Ok((authorization, life.min(LIFETIME_MAX)))
    }

    fn said_no(&self, after: Option<Duration>, detail: &str) -> TokenError {
        TokenError { result: AttemptResult::Auth, after, detail: self.mask.apply(detail) }
    }
}

/// A token answer, good (RFC 6749 §5.1) or bad (§5.2).
#[derive(Default, serde::Deserialize)]
struct TokenAnswer {
    access_token: Option<String>,
    token_type: Option<String>,
    expires_in: Option<serde_json::Value>,
    error: Option<String>,
    error_description: Option<String>,
}

/// `Basic`, with both halves form-encoded first (RFC 6749 §2.3.1).
fn client_credentials(config: &OAuth2Config, mask: &Mask) -> HeaderValue {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let (id, secret) = (encode(&config.client_id), encode(config.client_secret.expose()));
    basic_credentials(&id, &secret, mask)
}

#[cfg(test)]
mod tests;
