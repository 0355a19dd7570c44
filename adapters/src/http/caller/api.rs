//! An upstream as the wire sees it.

use std::sync::Arc;

use http::HeaderName;
use rustls::ClientConfig;
use url::Url;

use super::{client::Client, script::Script};
use crate::{
    Timestamp,
    expression::{Expression, Template},
    http::{
        ApiConfig, ConfigError,
        auth::Auth,
        egress::{Guard, RefusedAddress},
        header_name, literal_address, tls,
    },
    secret::Mask,
};

/// One upstream: address, credentials and client, shared by all routes that call it.
pub struct Api {
    /// Without user part.
    pub(crate) url: Url,
    /// On every request.
    pub(crate) headers: Vec<(HeaderName, Template)>,
    /// Credentials.
    pub(crate) auth: Auth,
    /// Works on the answer.
    pub(crate) retry_after: Option<Expression>,
    /// Set when the host is an address that may not be called.
    pub(crate) refused: Option<RefusedAddress>,
    /// The connections.
    pub(crate) client: Client,
    /// Answers in the network's stead.
    pub(crate) script: Option<Arc<dyn Script>>,
    /// Every secret known.
    pub(crate) mask: Mask,
    /// The wall clock.
    pub(crate) now: fn() -> Timestamp,
}

impl Api {
    /// Builds an upstream. Reads the files of `tls`; connects to nothing. `concurrency` is how
    /// many connections are kept; `mask` learns every secret used; `now` is the wall clock.
    ///
    /// # Errors
    /// Whatever in `config` cannot work, with its key.
    pub fn new(
        config: &ApiConfig,
        concurrency: usize,
        mask: Mask,
        now: fn() -> Timestamp,
    ) -> Result<Self, ConfigError> {
        check_url("url", &config.url)?;
        if config.url.fragment().is_some() {
            return Err(ConfigError::new("url", "holds a fragment (`#…`), which is never sent"));
        }
        let guard = Guard::new(&config.egress);
        if let Some(proxy) = &config.proxy {
            check_url("proxy", proxy)?;
            proxy.password().into_iter().for_each(|password| mask.add(password));
        }
        let tls = Arc::new(client_tls(config)?);
        let auth = Auth::new(config, &tls, &guard, &mask, now)?;
        let headers = route_headers("headers", &config.headers, &auth)?;
        let refused = literal_address(&config.url).and_then(|ip| guard.check(ip).err());
        let (url, proxy) = (("url", &config.url), config.proxy.as_ref());
        let client = Client::new(url, &tls, guard, proxy, &mask, concurrency)?;
        let mut url = config.url.clone();
        url.set_username("").and_then(|()| url.set_password(None)).expect("an http URL has a host");
        let retry_after = config.retry_after.clone();
        let script = None;
        Ok(Self { url, headers, auth, retry_after, refused, client, script, mask, now })
    }

    /// The same upstream with `script` in the network's stead: nothing is ever sent, and where a
    /// token is due, `test-token` stands in for it.
    #[must_use]
    pub fn scripted(mut self, script: Arc<dyn Script>) -> Self {
        self.script = Some(script);
        self
    }
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("host", &self.url.host_str()).finish_non_exhaustive()
    }
}

/// Header templates by typed name.
///
/// # Errors
/// Names that are none, that are written twice, that the HTTP client sets, or that `auth` sets.
pub(crate) fn route_headers<'a>(
    key: &str,
    headers: impl IntoIterator<Item = (&'a String, &'a Template)>,
    auth: &Auth,
) -> Result<Vec<(HeaderName, Template)>, ConfigError> {
    let mut typed = Vec::<(HeaderName, Template)>::new();
    for (name, template) in headers {
        let key = format!("{key}.{name}");
        let name = header_name(&key, name)?;
        if auth.sets(&name) {
            return Err(ConfigError::new(key, "is set by the upstream's `auth:` too: keep one"));
        }
        if typed.iter().any(|(known, _)| *known == name) {
            return Err(ConfigError::new(key, "is written twice: header names ignore case"));
        }
        typed.push((name, template.clone()));
    }
    Ok(typed)
}

fn check_url(key: &str, url: &Url) -> Result<(), ConfigError> {
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(ConfigError::new(key, "must begin with https:// or http:// and name a host"));
    }
    Ok(())
}

fn client_tls(config: &ApiConfig) -> Result<ClientConfig, ConfigError> {
    let token_url = config.auth.oauth2.as_ref().map(|oauth2| &oauth2.token_url);
    let urls = [Some(&config.url), token_url, config.proxy.as_ref()];
    let speaks_tls = urls.into_iter().flatten().any(|url| url.scheme() == "https");
    let built = if speaks_tls || config.tls.is_some() {
        tls::client_config(config.tls.as_ref())
    } else {
        tls::client_config_without_authorities()
    };
    let mut tls = built.map_err(|error| ConfigError::new("tls", error.to_string()))?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}
