//! Faults of RabbitMQ and of the way to it.
//!
//! Most are played by the tests of each direction, `broker_faults.rs` and its neighbours. Here are
//! those that need a hand on single frames.

mod consuming;
mod node;
mod publishing;

use std::time::Duration;

use tidegate_tests::{
    Gateway,
    amqp_proxy::{Frame, Side, Then},
    eventually,
};

const IN_TIME: Duration = Duration::from_secs(60);

/// basic.ack, which is an ack from a client and a confirm from RabbitMQ.
const ACK: (u16, u16) = (60, 80);

fn is_confirm(frame: &Frame) -> bool {
    frame.is(Side::Broker, ACK.0, ACK.1)
}

/// Waits until the gateway says that it is connected as `role`, or is not.
async fn connected(gateway: &Gateway, role: &str, up: bool) {
    let line = format!("tidegate_broker_connected{{role=\"{role}\"}} {}", u8::from(up));
    eventually(&line, IN_TIME, || async {
        gateway.text("/metrics").await.contains(&line).then_some(())
    })
    .await;
}

/// Loses what `lost` says.
fn losing(
    lost: impl Fn(&Frame) -> bool + Send + 'static,
) -> impl FnMut(&Frame) -> Then + Send + 'static {
    move |frame| if lost(frame) { Then::Instead(Vec::new()) } else { Then::Pass }
}
