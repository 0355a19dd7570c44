//! Faults of the process and of its machine.

mod clock;
mod limits;
mod memory;
mod starting;

use std::time::Duration;

use tidegate_tests::{Api, Both, both::CONCURRENCY, eventually, process::signal, rabbitmq::Node};

const IN_TIME: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p12_stopped_until_rabbitmq_gave_it_up_it_goes_on_and_repeats_only_what_was_under_way() {
    let broker = Node::shared().await.vhost().await;
    // So slow that attempts are under way when it is stopped.
    let api = Api::with(|api| api.latency = Duration::from_millis(300)).await;
    let mut both = Both::through(broker, api, None, None).await;
    both.gateway.set("TIDEGATE__BROKER__RABBITMQ__HEARTBEAT", "1s");
    both.gateway.run().await;
    both.consuming().await;
    for _ in 0..2 {
        let before = both.api.count();
        both.publish(12).await;
        both.send_webhooks(4).await;
        eventually("attempts are under way", IN_TIME, || async {
            (both.api.count() >= before + 2).then_some(())
        })
        .await;
        signal(both.gateway.pid(), "-STOP").await;
        eventually("RabbitMQ has given it up", IN_TIME, || async {
            (both.broker.consumers("tidegate.award-points").await == 0).then_some(())
        })
        .await;
        // To somebody else, as far as RabbitMQ is concerned: all that was not acked comes again.
        both.publish(4).await;
        signal(both.gateway.pid(), "-CONT").await;
        both.consuming().await;
        both.send_webhooks(2).await;
        let repeats = both.judge().await;
        assert!(repeats.calls <= CONCURRENCY, "{repeats:?}");
        assert!(repeats.messages <= 4, "{repeats:?}");
    }
    assert!(!both.gateway.log().contains("panicked"), "{}", both.gateway.log());
}
