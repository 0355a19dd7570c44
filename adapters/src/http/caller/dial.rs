//! Making a connection: name, TCP, the proxy's tunnel, TLS, under one deadline.

use std::{
    error::Error as StdError,
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::future::BoxFuture;
use http::{HeaderValue, Uri};
use hyper_util::{
    client::legacy::connect::{HttpConnector, dns::Name, proxy::Tunnel},
    rt::TokioIo,
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Semaphore,
};
use tokio_rustls::TlsConnector;
use tower::Service as _;
use url::Url;

use crate::http::{
    ConfigError,
    egress::{Guard, RefusedAddress},
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
        let proxy = proxy.map(|url| Proxy::new(url, tls)).transpose()?;
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
            let tcp = self.tcp(&self.upstream).await?;
            return secure(self.tls.as_ref(), Dialled::Tcp(tcp)).await;
        };
        let tcp = Dialled::Tcp(self.tcp(&proxy.address).await?);
        let dialled = secure(proxy.tls.as_ref(), tcp).await?;
        if self.tls.is_none() {
            return Ok(dialled);
        }
        secure(self.tls.as_ref(), proxy.tunnel(dialled, &self.upstream).await?).await
    }

    async fn tcp(&self, to: &Uri) -> Result<TcpStream, DialError> {
        let connected = self.connector.clone().call(to.clone()).await;
        connected.map(TokioIo::into_inner).map_err(DialError::of_connector)
    }
}

impl Proxy {
    fn new(url: &Url, tls: &Arc<ClientConfig>) -> Result<Self, ConfigError> {
        // Spoken to in HTTP/1.1.
        let mut tls = ClientConfig::clone(tls);
        tls.alpn_protocols.clear();
        let authorization = super::super::auth::url_user(url).map(|(user, password)| {
            let encoded = STANDARD.encode(format!("{user}:{password}"));
            let mut value = HeaderValue::try_from(format!("Basic {encoded}"))
                .expect("Base64 fits into a header");
            value.set_sensitive(true);
            value
        });
        let tls = TlsTo::of("proxy", url, &Arc::new(tls))?;
        Ok(Self { address: origin("proxy", url)?, tls, authorization })
    }

    async fn tunnel(&self, dialled: Dialled, to: &Uri) -> Result<Dialled, DialError> {
        let mut dialled = Some(TokioIo::new(dialled));
        let connector = tower::service_fn(move |_: Uri| {
            std::future::ready(dialled.take().ok_or_else(|| io::Error::other("asked twice")))
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

async fn secure(tls: Option<&TlsTo>, dialled: Dialled) -> Result<Dialled, DialError> {
    let Some(tls) = tls else { return Ok(dialled) };
    let stream = tls.connector.connect(tls.server.clone(), dialled).await;
    stream.map(|stream| Dialled::Tls(Box::new(stream))).map_err(DialError::Tls)
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
        let mut link: Option<&(dyn StdError + 'static)> = Some(&error);
        while let Some(found) = link {
            if let Some(unresolved) = found.downcast_ref::<Unresolved>() {
                return match unresolved {
                    Unresolved::Refused(refused) => Self::Refused(*refused),
                    Unresolved::Failed(kind, text) => {
                        Self::Name(io::Error::new(*kind, text.clone()))
                    }
                };
            }
            link = found.source();
        }
        Self::Connect(Box::new(error))
    }
}

/// A connection, fresh from dialling.
pub(super) enum Dialled {
    Tcp(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<Dialled>>),
}

impl Dialled {
    /// Whether the two sides have agreed on HTTP/2.
    pub(super) fn speaks_http2(&self) -> bool {
        match self {
            Self::Tcp(_) => false,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }
}

impl AsyncRead for Dialled {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Dialled {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

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
