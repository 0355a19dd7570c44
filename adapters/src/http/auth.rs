//! Outbound credentials: what an upstream's `auth:` adds to each request at sending time.

pub mod config;
pub(crate) mod oauth2;
pub(crate) mod sign;

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use rustls::ClientConfig;
use url::Url;

use self::{
    oauth2::{OAuth2, Token, TokenError},
    sign::{Parts, Signer},
};
use super::{ApiConfig, ConfigError, caller::Client, egress::Guard, header_name};
use crate::{
    Timestamp,
    secret::{Mask, Secret},
};

/// Connections kept to a token endpoint: one request is under way at a time.
const TOKENS: usize = 1;

/// Credentials of one upstream, ready to be put on requests.
pub(crate) struct Auth {
    authorization: Authorization,
    headers: Vec<(HeaderName, HeaderValue)>,
    query: Vec<(String, Secret)>,
    signer: Option<Signer>,
}

/// What goes into `Authorization`.
enum Authorization {
    None,
    Fixed(HeaderValue),
    OAuth2(Box<OAuth2>),
}

impl Auth {
    /// Prepares `config.auth`, and the user part of `config.url` if there is one. Derived forms
    /// of secrets are made known to `mask`.
    ///
    /// # Errors
    /// More than one of bearer, basic, oauth2 and a user in the URL; more than one signature;
    /// values that are empty or do not fit into a header; a header set twice.
    pub(crate) fn new(
        config: &ApiConfig,
        tls: &Arc<ClientConfig>,
        guard: &Guard,
        mask: &Mask,
        now: fn() -> Timestamp,
    ) -> Result<Self, ConfigError> {
        let auth = &config.auth;
        let mut authorization = Authorization::None;
        let mut set = |next: Authorization| {
            if !matches!(authorization, Authorization::None) {
                let problem = "is given twice: keep one of bearer, basic, oauth2 and a user in url";
                return Err(ConfigError::new("auth", problem));
            }
            authorization = next;
            Ok(())
        };
        if let Some(bearer) = &auth.bearer {
            let value = secret_header("auth.bearer", "Bearer ", bearer.expose(), mask)?;
            set(Authorization::Fixed(value))?;
        }
        if let Some(basic) = &auth.basic {
            set(Authorization::Fixed(basic_header(
                &basic.username,
                basic.password.expose(),
                mask,
            )?))?;
        }
        if let Some((user, password)) = url_user(&config.url) {
            mask.add(&user);
            set(Authorization::Fixed(basic_header(&user, &password, mask)?))?;
        }
        if let Some(oauth2) = &auth.oauth2 {
            let (url, proxy) =
                (("auth.oauth2.token_url", &oauth2.token_url), config.proxy.as_ref());
            let client = Client::new(url, tls, guard.clone(), proxy, mask, TOKENS)?;
            let oauth2 = OAuth2::new(oauth2, client, guard, mask, now)?;
            set(Authorization::OAuth2(Box::new(oauth2)))?;
        }
        let signer = match (&auth.standard_webhooks, &auth.hmac) {
            (None, None) => None,
            (Some(webhooks), None) => Some(Signer::standard_webhooks(webhooks)?),
            (None, Some(hmac)) => Some(Signer::hmac(hmac)?),
            (Some(_), Some(_)) => {
                let problem = "has both standard_webhooks and hmac: keep one of them";
                return Err(ConfigError::new("auth", problem));
            }
        };
        let headers = auth
            .headers
            .iter()
            .map(|(name, secret)| {
                let key = format!("auth.headers.{name}");
                Ok((header_name(&key, name)?, secret_header(&key, "", secret.expose(), mask)?))
            })
            .collect::<Result<Vec<_>, ConfigError>>()?;
        let query = auth.query.iter().map(|(name, secret)| {
            if secret.expose().is_empty() {
                return Err(ConfigError::new(format!("auth.query.{name}"), "is empty"));
            }
            mask.add(secret.expose());
            Ok((name.clone(), secret.clone()))
        });
        let query = query.collect::<Result<Vec<_>, ConfigError>>()?;
        let auth = Self { authorization, headers, query, signer };
        auth.refuse_repeated_headers()?;
        Ok(auth)
    }

    /// Whether it sets this header itself, so that nothing else may.
    pub(crate) fn sets(&self, name: &HeaderName) -> bool {
        self.header_names().contains(name)
    }

    /// The names of the query parameters it appends.
    pub(crate) fn query_names(&self) -> impl Iterator<Item = &str> {
        self.query.iter().map(|(name, _)| name.as_str())
    }

    /// The OAuth2 token, when there is such a thing; `refused` as in [`OAuth2::token`].
    ///
    /// # Errors
    /// When none could be fetched.
    pub(crate) async fn token(&self, refused: Option<u64>) -> Result<Option<Token>, TokenError> {
        match &self.authorization {
            Authorization::OAuth2(oauth2) => oauth2.token(refused).await.map(Some),
            Authorization::None | Authorization::Fixed(_) => Ok(None),
        }
    }

    /// What a rehearsal has in an OAuth2 token's stead.
    pub(crate) fn stand_in(&self, refused: Option<u64>) -> Option<Token> {
        match &self.authorization {
            Authorization::OAuth2(_) => Some(Token::stand_in(refused.map_or(1, |last| last + 1))),
            Authorization::None | Authorization::Fixed(_) => None,
        }
    }

    /// Puts everything on a request that is about to leave.
    pub(crate) fn apply(
        &self,
        token: Option<&Token>,
        id: impl FnOnce() -> String,
        now: Timestamp,
        url: &mut Url,
        headers: &mut HeaderMap,
        body: &[u8],
    ) {
        let fixed = match &self.authorization {
            Authorization::Fixed(value) => Some(value),
            Authorization::None | Authorization::OAuth2(_) => None,
        };
        if let Some(value) = token.map(|token| &token.authorization).or(fixed) {
            headers.insert(header::AUTHORIZATION, value.clone());
        }
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        if !self.query.is_empty() {
            let pairs = self.query.iter().map(|(name, secret)| (name, secret.expose()));
            url.query_pairs_mut().extend_pairs(pairs);
        }
        if let Some(signer) = &self.signer {
            let timestamp_s = now.0.div_euclid(1000);
            let parts = Parts { id: &id(), timestamp_s, url: url.as_str(), raw: body };
            signer.sign(&parts, headers);
        }
    }

    fn header_names(&self) -> Vec<HeaderName> {
        let authorization = match self.authorization {
            Authorization::None => None,
            Authorization::Fixed(_) | Authorization::OAuth2(_) => Some(header::AUTHORIZATION),
        };
        let signature = self.signer.iter().flat_map(Signer::header_names);
        let headers = self.headers.iter().map(|(name, _)| name.clone());
        authorization.into_iter().chain(signature).chain(headers).collect()
    }

    fn refuse_repeated_headers(&self) -> Result<(), ConfigError> {
        let mut names = self.header_names();
        names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            None => Ok(()),
            Some(pair) => {
                let problem = format!("sets the header `{}` twice", pair[0]);
                Err(ConfigError::new("auth", problem))
            }
        }
    }
}

fn secret_header(
    key: &str,
    scheme: &str,
    secret: &str,
    mask: &Mask,
) -> Result<HeaderValue, ConfigError> {
    if secret.is_empty() {
        return Err(ConfigError::new(key, "is empty"));
    }
    mask.add(secret);
    let mut value = HeaderValue::from_str(&format!("{scheme}{secret}")).map_err(|_| {
        ConfigError::new(key, "does not fit into a header: it holds a line break or the like")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// RFC 7617, UTF-8.
fn basic_header(user: &str, password: &str, mask: &Mask) -> Result<HeaderValue, ConfigError> {
    if user.contains(':') {
        let problem = "must not hold a colon: it separates name and password (RFC 7617)";
        return Err(ConfigError::new("auth.basic.username", problem));
    }
    mask.add(password);
    Ok(basic_credentials(user, password, mask))
}

/// `Basic …`, marked as sensitive; what it holds is made known to `mask`.
pub(crate) fn basic_credentials(user: &str, password: &str, mask: &Mask) -> HeaderValue {
    let pair = STANDARD.encode(format!("{user}:{password}"));
    secret_header("", "Basic ", &pair, mask).expect("Base64 is not empty and fits into a header")
}

/// The user part of a URL, percent-decoded.
pub(super) fn url_user(url: &Url) -> Option<(String, String)> {
    let decode =
        |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let password = url.password().unwrap_or_default();
    let present = !url.username().is_empty() || !password.is_empty();
    present.then(|| (decode(url.username()), decode(password)))
}

#[cfg(test)]
mod tests;
