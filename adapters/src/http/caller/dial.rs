//! Making a connection: name, TCP, the proxy's tunnel, TLS, under one deadline.

use std::{
    error::Error as StdError,
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{HeaderValue, Uri};
use hyper_util::{
    client::legacy::connect::{HttpConnector, dns::Name, proxy::Tunnel},
    rt::TokioIo,
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
};
use tokio_rustls::TlsConnector;
use tower::Service as _;
use url::Url;

use super::network;
use crate::{
    http::{
        ConfigError,
        auth::{basic_credentials, url_user},
        egress::{Guard, RefusedAddress},
    },
    secret::Mask,
};

/// Name, TCP and TLS together.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Idle TCP connections are probed, so that a vanished peer is noticed.
const TCP_KEEPALIVE: Duration = Duration::from_secs(15);

/// HTTP/2 pings while requests are under way, and how long an answer may take.
pub(super) const PING: Duration = Duration::from_secs(5);

/// Name look-ups at once, for one upstream: they block a thread each, and may hang.
const LOOKUPS: usize = 8;

/// Dials one upstream.
pub(super) struct Dialer {
    upstream: Uri,
    tls: Option<TlsTo>,
    proxy: Option<Proxy>,
    connector: HttpConnector<Resolver>,
}

/// TLS with one server.
struct TlsTo {
    connector: TlsConnector,
    server: ServerName<'static>,
}

/// Who is dialled in the upstream's stead.
struct Proxy {
    address: Uri,
    tls: Option<TlsTo>,
    /// Its own, not the upstream's.
    authorization: Option<HeaderValue>,
}

/// Why there is no connection. Nothing was sent.
#[derive(Debug)]
pub(super) enum DialError {
    Refused(RefusedAddress),
    /// The name does not resolve.
    Name(io::Error),
    Connect(Box<dyn StdError + Send + Sync>),
    Tls(io::Error),
    TimedOut,
}

impl Dialer {
    /// A dialer of the URL's host. `guard` is who may be called, and does not hold for a proxy,
    /// which the operator chose: the target's name is resolved by it, and its rules hold then.
    ///
    /// # Errors
    /// When it or the proxy's cannot be dialled, with the key.
    pub(super) fn new(
        (key, url): (&str, &Url),
        tls: &Arc<ClientConfig>,
        guard: Guard,
        proxy: Option<&Url>,
        mask: &Mask,
    ) -> Result<Self, ConfigError> {
        let guard = proxy.is_none().then_some(guard);
        let mut connector = HttpConnector::new_with_resolver(Resolver {
            guard,
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
        });
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_keepalive(Some(TCP_KEEPALIVE));
        connector.set_keepalive_interval(Some(TCP_KEEPALIVE));
        // Makes a name's addresses share the time fairly; must not come before the deadline of
        // all, or its end would look like a refusal.
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT + Duration::from_secs(1)));
        let proxy = proxy.map(|url| Proxy::new(url, tls, mask)).transpose()?;
        Ok(Self { upstream: origin(key, url)?, tls: TlsTo::of(key, url, tls)?, proxy, connector })
    }

    /// What a request through a proxy that forwards it has to carry; `None` when there is no such
    /// proxy in between.
    pub(super) fn forwards(&self) -> Option<Option<&HeaderValue>> {
        let forwarding = self.proxy.as_ref().filter(|_| self.tls.is_none());
        forwarding.map(|proxy| proxy.authorization.as_ref())
    }

    /// The upstream: scheme, host and port.
    pub(super) fn upstream(&self) -> &Uri {
        &self.upstream
    }

    /// Dials.
    ///
    /// # Errors
    /// When there is no connection within [`CONNECT_TIMEOUT`].
    pub(super) async fn dial(&self) -> Result<Dialled, DialError> {
        let dialled = tokio::time::timeout(CONNECT_TIMEOUT, self.connect()).await;
        dialled.unwrap_or(Err(DialError::TimedOut))
    }

    async fn connect(&self) -> Result<Dialled, DialError> {
        let Some(proxy) = &self.proxy else {
            return secure(self.tls.as_ref(), self.tcp(&self.upstream).await?).await;
        };
        let dialled = secure(proxy.tls.as_ref(), self.tcp(&proxy.address).await?).await?;
        if self.tls.is_none() {
            return Ok(dialled);
        }
        secure(self.tls.as_ref(), proxy.tunnel(dialled.io, &self.upstream).await?).await
    }

    async fn tcp(&self, to: &Uri) -> Result<Box<dyn Io>, DialError> {
        let connected = self.connector.clone().call(to.clone()).await;
        let stream = connected.map_err(DialError::of_connector)?.into_inner();
        Ok(Box::new(stream))
    }
}

impl Proxy {
    fn new(url: &Url, tls: &Arc<ClientConfig>, mask: &Mask) -> Result<Self, ConfigError> {
        // Spoken to in HTTP/1.1.
        let mut tls = ClientConfig::clone(tls);
        tls.alpn_protocols.clear();
        let authorization =
            url_user(url).map(|(user, password)| basic_credentials(&user, &password, mask));
        let tls = TlsTo::of("proxy", url, &Arc::new(tls))?;
        Ok(Self { address: origin("proxy", url)?, tls, authorization })
    }

    async fn tunnel(&self, io: Box<dyn Io>, to: &Uri) -> Result<Box<dyn Io>, DialError> {
        let mut io = Some(TokioIo::new(io));
        let connector = tower::service_fn(move |_: Uri| {
            std::future::ready(io.take().ok_or_else(|| io::Error::other("asked twice")))
        });
        let mut tunnel = Tunnel::new(self.address.clone(), connector);
        if let Some(authorization) = &self.authorization {
            tunnel = tunnel.with_auth(authorization.clone());
        }
        let through = tunnel.call(to.clone()).await;
        through.map(TokioIo::into_inner).map_err(|error| DialError::Connect(error.into()))
    }
}

impl TlsTo {
    /// `None` when `url` is no https.
    fn of(key: &str, url: &Url, config: &Arc<ClientConfig>) -> Result<Option<Self>, ConfigError> {
        if url.scheme() != "https" {
            return Ok(None);
        }
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let server = ServerName::try_from(host)
            .map_err(|error| ConfigError::new(key, format!("names no server: {error}")))?;
        Ok(Some(Self { connector: TlsConnector::from(Arc::clone(config)), server }))
    }
}

async fn secure(tls: Option<&TlsTo>, io: Box<dyn Io>) -> Result<Dialled, DialError> {
    let Some(tls) = tls else { return Ok(Dialled { io, http2: false }) };
    let stream = tls.connector.connect(tls.server.clone(), io).await.map_err(DialError::Tls)?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok(Dialled { io: Box::new(stream), http2 })
}

fn origin(key: &str, url: &Url) -> Result<Uri, ConfigError> {
    let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
    format!("{}://{authority}/", url.scheme())
        .parse()
        .map_err(|error| ConfigError::new(key, format!("cannot be called: {error}")))
}

impl DialError {
    /// The connector has one error for a name and a connection, and shows neither apart.
    fn of_connector(error: impl StdError + Send + Sync + 'static) -> Self {
        match network::find::<Unresolved>(&network::chain(&error)) {
            Some(Unresolved::Refused(refused)) => Self::Refused(*refused),
            Some(Unresolved::Failed(kind, text)) => Self::Name(io::Error::new(*kind, text.clone())),
            None => Self::Connect(Box::new(error)),
        }
    }
}

/// A connection, fresh from dialling.
pub(super) struct Dialled {
    pub(super) io: Box<dyn Io>,
    /// Whether the two sides have agreed on HTTP/2.
    pub(super) http2: bool,
}

/// TCP, or TLS, or one through the other.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

// ===== names to addresses =====

/// The system's resolver behind the egress guard: what may not be called is not found.
#[derive(Debug, Clone)]
struct Resolver {
    guard: Option<Guard>,
    lookups: Arc<Semaphore>,
}

/// Why a name has no address for us.
#[derive(Debug, thiserror::Error)]
enum Unresolved {
    #[error(transparent)]
    Refused(RefusedAddress),
    #[error("{1}")]
    Failed(io::ErrorKind, String),
}

impl tower::Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Unresolved;
    type Future = BoxFuture<'static, Result<Self::Response, Unresolved>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unresolved>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let Self { guard, lookups } = self.clone();
        let failed = |error: io::Error| Unresolved::Failed(error.kind(), error.to_string());
        Box::pin(async move {
            let permit = lookups.acquire_owned().await;
            let permit = permit.map_err(|closed| failed(io::Error::other(closed)))?;
            let look_up = move || {
                // Given back when the thread is free again, even if nobody waits any more.
                let _permit = permit;
                (name.as_str(), 0).to_socket_addrs().map(Iterator::collect::<Vec<_>>)
            };
            let found = tokio::task::spawn_blocking(look_up).await;
            let mut found =
                found.map_err(|gone| failed(io::Error::other(gone)))?.map_err(failed)?;
            let Some(guard) = guard else { return Ok(found.into_iter()) };
            let refused = found.iter().find_map(|found| guard.check(found.ip()).err());
            found.retain(|found| guard.allows(found.ip()));
            match refused {
                Some(refused) if found.is_empty() => Err(Unresolved::Refused(refused)),
                _ => Ok(found.into_iter()),
            }
        })
    }
}
