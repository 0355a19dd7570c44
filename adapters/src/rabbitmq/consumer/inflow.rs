//! The messages of one consume, in the order of their tags.

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;

use crate::rabbitmq::session::SessionError;

/// The messages of one consume. The library's stream is pending for ever after its end; this one
/// remembers it.
pub(super) struct Inflow {
    pub(super) deliveries: lapin::Consumer,
    pub(super) last_tag: u64,
    /// Why it ended, if it has.
    pub(super) ended: Option<SessionError>,
}

impl Inflow {
    /// The next message; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Delivery> {
        let next = self.deliveries.next().await;
        self.take(next)
    }

    /// The next message if it is there.
    pub(super) fn ready(&mut self) -> Option<Delivery> {
        if self.ended.is_some() {
            return None;
        }
        let next = self.deliveries.next().now_or_never()?;
        self.take(next)
    }

    fn take(&mut self, next: Option<lapin::Result<Delivery>>) -> Option<Delivery> {
        let error = match next {
            Some(Ok(delivery)) if delivery.delivery_tag == self.last_tag + 1 => {
                self.last_tag = delivery.delivery_tag;
                return Some(delivery);
            }
            Some(Ok(_)) => SessionError::Gap,
            Some(Err(source)) => SessionError::Amqp { step: "consume", source },
            None => SessionError::Cancelled,
        };
        self.ended = Some(error);
        None
    }
}
