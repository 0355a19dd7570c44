//! The body of a request, under three bounds: its own size, its time, and what all bodies together
//! may take.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{RETRY_AFTER, problem::Refusal};
use crate::{Rejection, http::ServerConfig};

/// What all bodies in memory may take together, in steps of a kibibyte.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    steps: Arc<Semaphore>,
}

/// A body, and its part of the budget for as long as it is held.
#[derive(Debug)]
pub(super) struct Body {
    bytes: Bytes,
    _held: Option<OwnedSemaphorePermit>,
}

const STEP: u64 = 1024;

impl Budget {
    pub(super) fn new(bytes: u64) -> Self {
        let steps = usize::try_from(bytes.div_ceil(STEP)).unwrap_or(usize::MAX);
        Self { steps: Arc::new(Semaphore::new(steps.min(Semaphore::MAX_PERMITS))) }
    }

    /// Room for `bytes` more.
    fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let steps = u32::try_from((bytes as u64).div_ceil(STEP)).unwrap_or(u32::MAX);
        Arc::clone(&self.steps).try_acquire_many_owned(steps).map_err(|_| {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests in memory at once")
                .because(Rejection::Busy)
                .after(RETRY_AFTER)
                .closing()
        })
    }
}

impl Body {
    pub(super) fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }
}

/// Reads it whole. What is refused by its stated length is not read at all; what turns out too
/// large is not read on.
pub(super) async fn read(
    body: Incoming,
    config: &ServerConfig,
    budget: &Budget,
) -> Result<Body, Refusal> {
    let most = usize::try_from(config.max_body).unwrap_or(usize::MAX);
    if body.size_hint().exact().is_some_and(|length| length > config.max_body) {
        return Err(too_large(config.max_body));
    }
    match timeout(config.body_timeout, gather(body, most, budget)).await {
        Ok(gathered) => gathered,
        Err(_) => {
            let why = format!("the body took longer than {:?}", config.body_timeout);
            let refusal = Refusal::new(StatusCode::REQUEST_TIMEOUT, why);
            Err(refusal.because(Rejection::Timeout).closing())
        }
    }
}

async fn gather(mut body: Incoming, most: usize, budget: &Budget) -> Result<Body, Refusal> {
    // What has come is counted, not what was announced: lengths cost their sender nothing.
    let (mut held, mut room): (Option<OwnedSemaphorePermit>, usize) = (None, 0);
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let refusal = Refusal::new(StatusCode::BAD_REQUEST, format!("the body: {error}"));
            refusal.because(Rejection::Malformed).closing()
        })?;
        // Trailers say nothing that anybody here would believe.
        let Ok(data) = frame.into_data() else { continue };
        let size = bytes.len() + data.len();
        if size > most {
            return Err(too_large(most as u64));
        }
        if size > room {
            // At least doubling, so that a body in many small pieces is not asked for in each.
            let more = (size - room).max(room).max(16 << 10).min(most - room);
            let more = more.max(size - room);
            let permit = budget.take(more)?;
            match &mut held {
                Some(held) => held.merge(permit),
                None => held = Some(permit),
            }
            room += more;
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Body { bytes: bytes.freeze(), _held: held })
}

fn too_large(most: u64) -> Refusal {
    let why = format!("the body is larger than {most} bytes");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, why).because(Rejection::TooLarge).closing()
}
