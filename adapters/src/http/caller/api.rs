//! An upstream as the wire sees it: the one HTTP client constructor there is.

use std::{net::ToSocketAddrs as _, sync::Arc, time::Duration};

use http::HeaderName;
use rustls::ClientConfig;
use tokio::sync::Semaphore;
use url::Url;

use super::{
    dial::{CONNECT_TIMEOUT, DialLayer},
    script::Script,
};
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

/// Below the 5 s after which common servers close idle connections, so that ours never races it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Idle TCP connections are probed, so that a vanished peer is noticed.
const TCP_KEEPALIVE: Duration = Duration::from_secs(15);

/// HTTP/2 pings while requests are under way, and how long an answer may take.
const PING: Duration = Duration::from_secs(5);

/// Name look-ups at once, for one upstream: they block a thread each, and may hang.
const LOOKUPS: usize = 8;

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
    /// The client.
    pub(crate) client: reqwest::Client,
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
        let auth = Auth::new(config, &guard, &mask, now)?;
        let headers = route_headers("headers", &config.headers, &auth)?;
        let refused = literal_address(&config.url).and_then(|ip| guard.check(ip).err());
        let tls = client_tls(config)?;
        let client = client(tls, guard, concurrency, config.proxy.as_ref(), &mask)?;
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

/// The only place that makes a client. Every default that bites is set here.
fn client(
    tls: ClientConfig,
    guard: Guard,
    concurrency: usize,
    proxy: Option<&Url>,
    mask: &Mask,
) -> Result<reqwest::Client, ConfigError> {
    // With a proxy the only name we resolve is the proxy's own, which the operator chose; the
    // target's is resolved by the proxy, whose rules hold then.
    let guard = proxy.is_none().then_some(guard);
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .dns_resolver(Resolver { guard, lookups: Arc::new(Semaphore::new(LOOKUPS)) })
        .connector_layer(DialLayer)
        // A redirect would carry our body and credentials to a place nobody configured.
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        // The queue is the one retry engine; a silent second send would take no token.
        .retry(reqwest::retry::never())
        // The environment's proxies would see what the configuration did not mean them to.
        .no_proxy()
        // `Dial` has the deadline; this one makes a name's addresses share the time fairly, and
        // must not come first, or its end would look like a connection to the gate.
        .connect_timeout(CONNECT_TIMEOUT + Duration::from_secs(1))
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(concurrency)
        .tcp_nodelay(true)
        .tcp_keepalive(TCP_KEEPALIVE)
        .tcp_keepalive_interval(TCP_KEEPALIVE)
        .http2_keep_alive_interval(PING)
        .http2_keep_alive_timeout(PING)
        .http2_keep_alive_while_idle(false);
    if let Some(url) = proxy {
        check_url("proxy", url)?;
        url.password().into_iter().for_each(|password| mask.add(password));
        let proxy = reqwest::Proxy::all(url.clone())
            .map_err(|error| ConfigError::new("proxy", error.without_url().to_string()))?;
        builder = builder.proxy(proxy);
    }
    builder.build().map_err(|error| ConfigError::new("url", error.without_url().to_string()))
}

// ===== names to addresses =====

/// The system's resolver behind the egress guard: what may not be called is not found.
struct Resolver {
    guard: Option<Guard>,
    lookups: Arc<Semaphore>,
}

impl reqwest::dns::Resolve for Resolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let guard = self.guard.clone();
        let lookups = Arc::clone(&self.lookups);
        Box::pin(async move {
            let permit = lookups.acquire_owned().await?;
            let look_up = move || {
                // Given back when the thread is free again, even if nobody waits any more.
                let _permit = permit;
                (name.as_str(), 0).to_socket_addrs().map(Iterator::collect::<Vec<_>>)
            };
            let mut found = tokio::task::spawn_blocking(look_up).await??;
            let Some(guard) = guard else {
                return Ok(Box::new(found.into_iter()) as reqwest::dns::Addrs);
            };
            let refused = found.iter().find_map(|found| guard.check(found.ip()).err());
            found.retain(|found| guard.allows(found.ip()));
            match refused {
                Some(refused) if found.is_empty() => Err(refused.into()),
                _ => Ok(Box::new(found.into_iter()) as reqwest::dns::Addrs),
            }
        })
    }
}
