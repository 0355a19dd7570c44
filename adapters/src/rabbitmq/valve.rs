//! Holding a connection's reader back for a moment.
//!
//! The client library knows a consumer only after it has sent the consume: whatever comes in
//! between, it drops without a word. Nothing but being quick keeps that from happening, and on a
//! busy machine a thread may rest for long between the two. RabbitMQ then has sent all that the
//! prefetch allows, waits for acks of what nobody has seen, and the queue stands still. So nothing
//! is read from the connection from before the consume is sent until its consumer is known.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

/// Lets bytes through while nobody holds it. Clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Valve(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    holders: usize,
    reader: Option<Waker>,
}

/// Nothing is read until this is dropped.
#[derive(Debug)]
pub(super) struct Hold(Valve);

impl Valve {
    /// Holds the reader back.
    pub(super) fn hold(&self) -> Hold {
        self.0.lock().holders += 1;
        Hold(self.clone())
    }

    /// Ready when it may be read; wakes the reader when it may.
    pub(super) fn poll(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.holders == 0 {
            return Poll::Ready(());
        }
        state.reader = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.holders -= 1;
        let reader = if state.holders == 0 { state.reader.take() } else { None };
        drop(state);
        reader.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker_ref;

    use super::*;

    #[test]
    fn nothing_passes_until_the_last_hold_is_gone() {
        let valve = Valve::default();
        let context = Context::from_waker(noop_waker_ref());
        assert!(valve.poll(&context).is_ready());
        let (first, second) = (valve.hold(), valve.hold());
        drop(first);
        assert!(valve.poll(&context).is_pending());
        drop(second);
        assert!(valve.poll(&context).is_ready());
    }
}
