//! The admin listener: health, metrics, API.
//!
//! It reads what [`Inspect`] shows and changes what that offers, nothing else. It keeps answering
//! while the process drains, so that `/readyz` can say so, and is the last part to stop.

mod access;
mod api;
mod bulk;
mod control;
mod deliveries;
mod endpoint;
mod events;
mod filter;
mod health;
mod openapi;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    body::{Body as _, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Serialize, de::IgnoredAny};
use serde_json::{Value, json};
use tidegate_adapters::secret::Mask;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{app::Inspect, config::did_you_mean, queue::Action, telemetry};
use endpoint::{Endpoint, Missed};

/// The most connections at once: scrapers, probes and people.
const CONNECTIONS_MAX: usize = 256;

/// For a whole request head; and for a whole request body.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection is not kept for longer, however busy it is: a peer that takes no answer would hold
/// one of the few there are for good. What it asked for last is still done.
const CONNECTION_TIME: Duration = Duration::from_secs(600);

/// For the answers under way when the process is to end.
const LAST_ANSWER: Duration = Duration::from_secs(1);

/// The largest request body.
const BODY_MAX: usize = 4 << 20;

const JSON: &str = "application/json";

/// An answer of this listener.
type Answer = Response<Full<Bytes>>;

/// A listener that is bound and does not serve yet.
pub struct Admin {
    listener: TcpListener,
}

impl Admin {
    /// Binds `address`; port 0 is any free one. Answers where it is.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(address: SocketAddr) -> std::io::Result<(Self, SocketAddr)> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok((Self { listener }, address))
    }

    /// Serves until `shutdown`; answers under way then get a second.
    pub async fn run(self, inspect: Arc<dyn Inspect>, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let (stream, slot) = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = self.accept(&slots) => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of descriptors, most likely: wait for some to be given back.
                        tracing::warn!(%error, "cannot accept an admin connection");
                        sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            let (inspect, shutdown) = (Arc::clone(&inspect), shutdown.clone());
            connections.spawn(async move {
                serve(stream, inspect, shutdown).await;
                drop(slot);
            });
        }
        connections.close();
        connections.wait().await;
    }

    /// The next connection, once there is a slot for it.
    async fn accept(
        &self,
        slots: &Arc<Semaphore>,
    ) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
        let slot = Arc::clone(slots).acquire_owned().await.expect("the slots are never closed");
        let (stream, _) = self.listener.accept().await?;
        Ok((stream, slot))
    }
}

async fn serve(stream: TcpStream, inspect: Arc<dyn Inspect>, shutdown: CancellationToken) {
    let service = service_fn(move |request| {
        let inspect = Arc::clone(&inspect);
        async move { Ok::<_, Infallible>(answer(request, &inspect).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        // What a peer does to its own connection is its own affair.
        _ = &mut connection => return,
        () = shutdown.cancelled() => {}
        () = sleep(CONNECTION_TIME) => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                _ = &mut connection => return,
                () = shutdown.cancelled() => {}
                () = sleep(bulk::TIME_MAX) => {}
            }
        }
    }
    connection.as_mut().graceful_shutdown();
    // Whoever has not taken its answer by then goes without.
    let _ = timeout(LAST_ANSWER, connection).await;
}

async fn answer(request: Request<Incoming>, inspect: &Arc<dyn Inspect>) -> Answer {
    let mut answer = match route(request, inspect).await {
        Ok(answer) | Err(answer) => answer,
    };
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // To HEAD hyper sends the length of this body, and not the body.
    answer
}

async fn route(request: Request<Incoming>, shared: &Arc<dyn Inspect>) -> Result<Answer, Answer> {
    let (head, body) = request.into_parts();
    let inspect = &**shared;
    let operator = access::check(&inspect.config().settings.admin, &head)?;
    let path = head.uri.path();
    let (endpoint, name) = endpoint::find(&head.method, path).map_err(|missed| match missed {
        Missed::Nowhere => problem(StatusCode::NOT_FOUND, &format!("there is nothing at {path}")),
        Missed::Method(allowed) => not_allowed(&allowed),
    })?;
    let query = head.uri.query().unwrap_or("");
    let reads = operator.reads;
    let operator = &*operator.name;
    match endpoint {
        Endpoint::Alive => Ok(health::alive(inspect).await),
        Endpoint::Ready => Ok(health::ready(inspect, reads)),
        Endpoint::Metrics => {
            let text = telemetry::Metrics::render(&inspect.metrics(), inspect).await;
            Ok(with_type(StatusCode::OK, telemetry::CONTENT_TYPE, text))
        }
        Endpoint::OpenApi => Ok(with_type(StatusCode::OK, JSON, openapi::document())),
        Endpoint::Routes => api::routes(inspect).await,
        Endpoint::Route => api::route(inspect, &name).await,
        Endpoint::Upstreams => api::upstreams(inspect),
        Endpoint::Upstream => api::upstream(inspect, &name),
        Endpoint::Deliveries => deliveries::deliveries(inspect, query).await,
        Endpoint::Delivery => deliveries::delivery(inspect, &name).await,
        Endpoint::Publish => {
            let body = take(&head, body, &[JSON, events::STRUCTURED]).await?;
            events::publish(inspect, operator, &head, query, body).await
        }
        Endpoint::ReplayDeliveries | Endpoint::DiscardDeliveries => {
            let body = take(&head, body, &[JSON]).await?;
            let action = match endpoint {
                Endpoint::ReplayDeliveries => Action::Replay,
                _ => Action::Discard,
            };
            bulk::act(shared, operator, action, &body).await
        }
        verb => {
            control::no_body(&take(&head, body, &[JSON]).await?)?;
            command(inspect, operator, verb, &name).await
        }
    }
}

/// What an operator asks for by the path alone.
async fn command(
    inspect: &dyn Inspect,
    operator: &str,
    verb: Endpoint,
    name: &str,
) -> Result<Answer, Answer> {
    match verb {
        Endpoint::PauseRoute => control::pause_route(inspect, operator, name, true).await,
        Endpoint::ResumeRoute => control::pause_route(inspect, operator, name, false).await,
        Endpoint::PauseUpstream => control::pause_upstream(inspect, operator, name, true).await,
        Endpoint::ResumeUpstream => control::pause_upstream(inspect, operator, name, false).await,
        Endpoint::ResetUpstream => control::reset_upstream(inspect, operator, name),
        Endpoint::ReplayDelivery => control::act(inspect, operator, Action::Replay, name).await,
        Endpoint::DiscardDelivery => control::act(inspect, operator, Action::Discard, name).await,
        Endpoint::Reload => control::reload(inspect, operator).await,
        _ => unreachable!("`route` has taken the others"),
    }
}

/// The body, if it is of one of `types`; none at all is an empty one.
async fn take(head: &Parts, body: Incoming, types: &[&str]) -> Result<Bytes, Answer> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    access::check_body(head, types)?;
    read(body).await
}

async fn read(body: Incoming) -> Result<Bytes, Answer> {
    let whole = Limited::new(body, BODY_MAX).collect();
    match timeout(BODY_TIMEOUT, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(problem(StatusCode::PAYLOAD_TOO_LARGE, "the body exceeds 4 MiB"))
        }
        Ok(Err(_)) => Err(problem(StatusCode::BAD_REQUEST, "the body broke off")),
        Err(_) => Err(problem(StatusCode::REQUEST_TIMEOUT, "the body took longer than 10 s")),
    }
}

/// `application/problem+json` (RFC 9457).
fn problem(status: StatusCode, detail: &str) -> Answer {
    let title = status.canonical_reason().unwrap_or("error");
    let body = json!({ "title": title, "status": status.as_u16(), "detail": detail });
    with_type(status, "application/problem+json", body.to_string())
}

fn not_allowed(allowed: &str) -> Answer {
    let mut answer = problem(StatusCode::METHOD_NOT_ALLOWED, &format!("allowed here: {allowed}"));
    let allowed = HeaderValue::from_str(allowed).expect("names of methods are ASCII");
    answer.headers_mut().insert(header::ALLOW, allowed);
    answer
}

/// 404, with the name among `known` that was meant, if one is near.
fn missing<'n>(what: &str, name: &str, known: impl IntoIterator<Item = &'n str>) -> Answer {
    let near = did_you_mean(name, known);
    problem(StatusCode::NOT_FOUND, &format!("there is no {what} `{name}`{near}"))
}

/// 200 with `body`, every secret in it masked: an event or an answer may echo one.
fn ok(inspect: &dyn Inspect, body: &impl Serialize) -> Answer {
    let json = serde_json::to_string(body).expect("keys are strings and numbers are finite");
    with_type(StatusCode::OK, JSON, masked(&inspect.config().mask, json))
}

fn masked(mask: &Mask, json: String) -> String {
    let masked = mask.apply(&json);
    if masked == json || serde_json::from_str::<IgnoredAny>(&masked).is_ok() {
        return masked;
    }
    // A secret that stood there as a bare number: `***` is none.
    match serde_json::from_str(&json) {
        Ok(value) => scrub(mask, value).to_string(),
        Err(_) => Value::from(masked).to_string(),
    }
}

fn scrub(mask: &Mask, value: Value) -> Value {
    match value {
        Value::String(text) => mask.apply(&text).into(),
        Value::Number(number) => {
            let text = number.to_string();
            let masked = mask.apply(&text);
            if masked == text { Value::Number(number) } else { masked.into() }
        }
        Value::Array(items) => items.into_iter().map(|item| scrub(mask, item)).collect(),
        Value::Object(members) => {
            let members = members.into_iter();
            members.map(|(name, member)| (mask.apply(&name), scrub(mask, member))).collect()
        }
        plain => plain,
    }
}

fn with_type(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

#[cfg(test)]
mod tests;
