//! Dial, handshake, supervise: one connection that is always there again. See [`super`].

use std::{
    io,
    net::{Shutdown, TcpStream},
    os::fd::AsFd as _,
    sync::Arc,
    time::Duration,
};

use futures_util::StreamExt as _;
use lapin::{
    AsyncTcpStream, Channel, Connection, ConnectionProperties, ConnectionStatus, ErrorKind,
    tcp::RustlsConnector,
    types::{LongString, ShortString},
    uri::{AMQPScheme, AMQPUri},
};
use parking_lot::Mutex;
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    BrokerConfig, greeting,
    shallow::{self, Shallow},
    valve::{Hold, Valve},
};
use crate::http::tls::{TlsError, client_config};

/// How long each step may take: dial, TLS, handshake, declare, consume, ack, close.
pub(super) const STEP: Duration = Duration::from_secs(5);

/// How long a connection, or a consumer, must have lived for the next wait to be short again.
pub(super) const STEADY: Duration = Duration::from_secs(1);

/// How often the connection is looked at besides: not every way it ends is told.
const LOOK: Duration = Duration::from_secs(1);

/// Frames of 128 KiB: the library sizes its buffers by it and takes 137 GB for "no limit".
const FRAME_MAX: u32 = 131_072;

/// Why `broker.rabbitmq` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The URL is none. It is not shown: it holds a password.
    #[error("url: not an AMQP URL: write amqp://user:password@host:5672/vhost (%2f is vhost /)")]
    Url,
    /// TLS options for a URL without TLS.
    #[error("tls: the url is amqp://, which speaks no TLS: write amqps://")]
    TlsUnused,
    /// The TLS files.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Why a session ended, or never came to be.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Something took too long.
    #[error("{step}: nothing within {} s", STEP.as_secs())]
    Deadline {
        /// What was tried.
        step: &'static str,
    },
    /// The network.
    #[error("{step}: {source}")]
    Network {
        /// What was tried.
        step: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// RabbitMQ, or the library that speaks to it.
    #[error("{step}: {}", reason(source))]
    Amqp {
        /// What was tried.
        step: &'static str,
        /// What went wrong.
        source: lapin::Error,
    },
    /// A name that AMQP cannot carry.
    #[error("`{0}` is longer than 255 bytes")]
    TooLong(String),
    /// `declare: false`, and there is no such queue.
    #[error("RabbitMQ queue `{0}` does not exist, and `declare` is false: create it, or declare")]
    NoQueue(String),
    /// The queue exists with other arguments, or may not be declared.
    #[error("{reason}: if the queue is to be used as it is, set `declare: false`")]
    NotDeclared {
        /// RabbitMQ's words.
        reason: String,
    },
    /// RabbitMQ cancelled the consumer: the queue was deleted, or its node went down.
    #[error("RabbitMQ cancelled the consumer: the queue is gone or moving")]
    Cancelled,
    /// The tags of a channel's deliveries count up from 1, and one did not.
    #[error("a message was lost between RabbitMQ and us: the channel is closed to get it again")]
    Gap,
    /// No confirm came, and the connection is not blocked.
    #[error("RabbitMQ confirms nothing")]
    Unconfirmed,
    /// The connection was given up.
    #[error("the connection ended")]
    Cut,
    /// An ack came too late for its channel.
    #[error("the channel was closed before its ack")]
    Stale,
}

impl SessionError {
    /// The AMQP reply code when RabbitMQ refused something.
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::Amqp { source, .. } => match source.kind() {
                ErrorKind::ProtocolError(refused) => Some(refused.get_id()),
                _ => None,
            },
            _ => None,
        }
    }
}

/// RabbitMQ's own words where there are any.
pub(super) fn reason(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(refused) if !refused.get_message().as_str().is_empty() => {
            refused.get_message().to_string()
        }
        ErrorKind::IOError(source) => source.to_string(),
        _ => error.to_string(),
    }
}

/// Waits for `work`, [`STEP`] at most; errors say `step`.
pub(super) async fn within<T>(
    step: &'static str,
    work: impl Future<Output = lapin::Result<T>>,
) -> Result<T, SessionError> {
    match timeout(STEP, work).await {
        Ok(result) => result.map_err(|source| SessionError::Amqp { step, source }),
        Err(_) => Err(SessionError::Deadline { step }),
    }
}

/// A name as AMQP carries it. The library's own conversion panics past 255 bytes.
pub(super) fn short(text: &str) -> Result<ShortString, SessionError> {
    ShortString::try_new(text).map_err(|_| SessionError::TooLong(text.to_owned()))
}

/// The RabbitMQ that both ends connect to. Clones are one; where it is may change while they run.
#[derive(Clone)]
pub struct Server {
    broker: watch::Sender<Arc<Broker>>,
}

impl Server {
    /// The one at `broker`.
    #[must_use]
    pub fn new(broker: Broker) -> Self {
        Self { broker: watch::channel(Arc::new(broker)).0 }
    }

    /// From now on `broker` is dialled. Connections that are open stay, unless it is another place:
    /// other credentials and certificates count from the next time on.
    pub fn set(&self, broker: Broker) {
        self.broker.send_replace(Arc::new(broker));
    }

    /// What is to be dialled, and when that changes.
    pub(super) fn dialled(&self) -> watch::Receiver<Arc<Broker>> {
        self.broker.subscribe()
    }
}

/// A RabbitMQ that can be dialled.
#[derive(Clone)]
pub struct Broker {
    uri: AMQPUri,
    tls: Option<Arc<RustlsConnector>>,
}

impl Broker {
    /// Of `config`. Reads the files of `tls`; connects to nothing.
    ///
    /// # Errors
    /// When the URL is none, or a TLS file is missing or wrong.
    pub fn new(config: &BrokerConfig) -> Result<Self, ConfigError> {
        let mut uri: AMQPUri = config.url.expose().parse().map_err(|_| ConfigError::Url)?;
        uri.query.frame_max = Some(FRAME_MAX);
        let seconds = config.heartbeat.as_millis().div_ceil(1000).max(1);
        uri.query.heartbeat = Some(u16::try_from(seconds).unwrap_or(u16::MAX));
        let tls = match (&uri.scheme, &config.tls) {
            (AMQPScheme::AMQPS, tls) => Some(Arc::new(client_config(tls.as_ref())?.into())),
            (AMQPScheme::AMQP, None) => None,
            (AMQPScheme::AMQP, Some(_)) => return Err(ConfigError::TlsUnused),
        };
        Ok(Self { uri, tls })
    }

    /// Whether `other` is the same virtual host of the same server.
    pub(super) fn is_where(&self, other: &Self) -> bool {
        let place = |broker: &Self| {
            let AMQPUri { scheme, authority, vhost, .. } = &broker.uri;
            (scheme.clone(), authority.host.clone(), authority.port, vhost.clone())
        };
        place(self) == place(other)
    }

    /// Dials and shakes hands; `role` is shown in RabbitMQ's list of connections.
    ///
    /// The socket is there before the library is asked: what it starts for a connection that
    /// cannot be dialled, it never ends.
    pub(super) async fn connect(&self, role: Role) -> Result<Link, SessionError> {
        let amqp = |source| SessionError::Amqp { step: "handshake", source };
        let runtime = lapin::runtime::default_runtime().map_err(amqp)?;
        let authority = &self.uri.authority;
        let dial = async || {
            let stream = in_step("connect", async {
                let address = (authority.host.as_str(), authority.port);
                let addresses: Vec<_> = tokio::net::lookup_host(address).await?.collect();
                AsyncTcpStream::connect(&runtime, addresses).await
            });
            let stream = stream.await?;
            let AsyncTcpStream::Plain(plain) = &stream else {
                unreachable!("a stream is plain until it is upgraded, which comes next")
            };
            let wire = Wire::of(plain.get_ref())
                .map_err(|source| SessionError::Network { step: "connect", source })?;
            let Some(tls) = &self.tls else { return Ok::<_, SessionError>((wire, stream)) };
            let upgraded = stream.into_rustls(tls, &authority.host);
            Ok((wire, in_step("TLS handshake", upgraded).await?))
        };
        let major_version = match role {
            Role::Consume => {
                let (_wire, stream) = dial().await?;
                in_step("greeting", greeting::major_version(stream)).await?
            }
            Role::Publish => 0,
        };
        // The wire comes before the connection, so it is dropped after it on every way out.
        let (wire, stream) = dial().await?;
        let valve = Valve::default();
        let stream = AsyncTcpStream::Plain(Shallow::new(stream, valve.clone()));
        let dialled = Mutex::new(Some(stream));
        let hand_over = async move |_, _| {
            let again = || io::Error::from(io::ErrorKind::NotConnected).into();
            dialled.lock().take().ok_or_else(again)
        };
        let (uri, properties) = (self.uri.clone(), properties(role));
        let connecting = Connection::connector(uri, shallow::runtime(), hand_over, properties);
        let connection = within("handshake", connecting).await?;
        let broken = CancellationToken::new();
        Ok(Link { connection, broken, major_version, valve, _wire: wire })
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    /// All routes' consumers.
    Consume,
    /// All that is published.
    Publish,
}

impl Role {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Consume => "consume",
            Self::Publish => "publish",
        }
    }
}

async fn in_step<T>(
    step: &'static str,
    work: impl Future<Output = io::Result<T>>,
) -> Result<T, SessionError> {
    match timeout(STEP, work).await {
        Ok(result) => result.map_err(|source| SessionError::Network { step, source }),
        Err(_) => Err(SessionError::Deadline { step }),
    }
}

fn properties(role: Role) -> ConnectionProperties {
    let name = match role {
        Role::Consume => "tidegate consume",
        Role::Publish => "tidegate publish",
    };
    ConnectionProperties::default()
        .with_connection_name(LongString::from(name))
        .with_client_property("product".into(), "tidegate".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into())
}

/// A second handle of a connection's socket. Dropping it shuts the socket down, which is what
/// wakes a thread of the library that waits for a silent peer.
struct Wire(TcpStream);

impl Wire {
    fn of(socket: &tokio::net::TcpStream) -> io::Result<Self> {
        Ok(Self(TcpStream::from(socket.as_fd().try_clone_to_owned()?)))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // It fails when the peer has closed already: just as well.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// An open connection.
pub(super) struct Link {
    connection: Connection,
    broken: CancellationToken,
    major_version: u16,
    valve: Valve,
    _wire: Wire,
}

impl Link {
    /// Nothing that RabbitMQ says is read until the answer is dropped.
    pub(super) fn hold(&self) -> Hold {
        self.valve.hold()
    }

    pub(super) fn alive(&self) -> bool {
        self.connection.status().connected() && !self.broken.is_cancelled()
    }

    pub(super) fn status(&self) -> &ConnectionStatus {
        self.connection.status()
    }

    pub(super) fn blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// RabbitMQ's, of consuming connections; 0 when unknown.
    pub(super) fn major_version(&self) -> u16 {
        self.major_version
    }

    /// Says that the connection hangs: it is given up for all who share it.
    pub(super) fn give_up(&self) {
        self.broken.cancel();
    }

    /// Opens a channel. One that hangs condemns the connection.
    pub(super) async fn channel(&self) -> Result<Channel, SessionError> {
        self.judge(within("open a channel", self.connection.create_channel()).await)
    }

    /// Passes `result` on, and gives the connection up when it is a missed deadline.
    pub(super) fn judge<T>(&self, result: Result<T, SessionError>) -> Result<T, SessionError> {
        if matches!(result, Err(SessionError::Deadline { .. })) {
            self.give_up();
        }
        result
    }

    /// Closes it politely; after [`STEP`], or when this is dropped, the socket is shut down.
    pub(super) async fn close(&self) {
        let closing = self.connection.close(200, "OK".into());
        if let Err(error) = within("close", closing).await {
            debug!(%error, "RabbitMQ connection not closed politely");
        }
    }

    /// Resolves when the connection was given up or has ended.
    pub(super) async fn gone(&self) {
        while self.alive() {
            tokio::select! {
                () = self.broken.cancelled() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Resolves when the connection has ended or was given up, with the reason.
    pub(super) async fn ended(&self) -> String {
        let mut events = std::pin::pin!(self.connection.events_listener());
        loop {
            let event = tokio::select! {
                () = self.broken.cancelled() => return "RabbitMQ does not answer".to_owned(),
                event = events.next() => event,
                () = tokio::time::sleep(LOOK) => None,
            };
            if self.connection.status().connected() {
                continue; // An error of a channel; that is its route's to handle.
            }
            return match event {
                Some(lapin::Event::Error(error)) => reason(&error),
                _ => "RabbitMQ closed the connection".to_owned(),
            };
        }
    }
}
