//! What the system gives a process comes to an end: descriptors, threads.

use std::time::Duration;

use tidegate_tests::{
    Api, Both, Strace,
    amqp_proxy::{AmqpProxy, Then},
    eventually,
    process::{descriptors, processor_time},
    rabbitmq::Node,
};
use tokio::{net::TcpStream, time::Instant};

use super::IN_TIME;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_without_descriptors_it_waits_for_some_and_what_it_holds_goes_on() {
    const MOST: usize = 64;
    let mut both = Both::new(Node::shared().await.vhost().await).await;
    let limit = format!("--nofile={MOST}:{MOST}");
    both.gateway.set_behind(vec!["prlimit".to_owned(), limit]);
    both.gateway.run().await;
    both.consuming().await;
    both.exchange(1, 0).await;
    both.settle().await;
    let (pid, base) = (both.gateway.pid(), both.gateway.webhooks().await);
    let address = base.strip_prefix("http://").expect("plain HTTP").to_owned();
    // The system takes connections for it beyond those that it takes itself.
    let mut held = Vec::new();
    for _ in 0..2 * MOST {
        held.push(TcpStream::connect(&address).await.expect("there is room in its backlog"));
    }
    let refused = "cannot accept a webhook connection";
    eventually("it has no descriptor left", IN_TIME, || async {
        (descriptors(pid) == MOST && both.gateway.log().contains(refused)).then_some(())
    })
    .await;
    let (used, began) = (processor_time(pid).expect("it runs"), Instant::now());
    eventually("it waits", IN_TIME, || async {
        (began.elapsed() >= Duration::from_secs(2)).then_some(())
    })
    .await;
    let (used, over) =
        (processor_time(pid).expect("it runs") - used, began.elapsed().as_secs_f64());
    assert!(used < 0.4 * over, "{used} s of {over} s");

    // What it holds does its work: RabbitMQ, the queue, and connections that were there before.
    both.publish(4).await;
    eventually("events are taken from RabbitMQ", IN_TIME, || async {
        (both.broker.messages("tidegate.award-points").await == 0).then_some(())
    })
    .await;
    both.send_webhook_over(held.swap_remove(0)).await;
    assert_eq!(both.answered(), (2, 0), "the one before, and this one");
    drop(held);
    both.exchange(4, 0).await;
    assert_eq!(both.judge().await.messages, 0);
    let log = both.gateway.log();
    assert!(!log.contains("panicked") && !log.contains("connection lost"), "{log}");
    assert!(both.gateway.stop().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_without_threads_it_tries_again_until_there_are_some() {
    let broker = Node::shared().await.vhost().await;
    let api = Api::start().await;
    // Names have to be looked up, on a thread.
    let by_name = |url: String| url.replace("127.0.0.1", "localhost");
    let proxy = AmqpProxy::to(&broker.url()).await;
    let (amqp, http) = (by_name(proxy.url()), by_name(api.url()));
    let mut both = Both::through(broker, api, Some(&amqp), Some(&http)).await;
    both.gateway.run().await;
    both.consuming().await;
    both.exchange(2, 0).await;
    both.settle().await;
    let pid = both.gateway.pid();
    let began = Instant::now();
    eventually("threads that are idle for long have ended", IN_TIME, || async {
        (began.elapsed() > Duration::from_secs(11)).then_some(())
    })
    .await;
    let strace = Strace::attach(pid, "clone,clone3:error=EAGAIN", &[]).await;
    both.publish(4).await;
    both.send_webhooks(4).await;
    proxy.set_rule(|_| Then::Cut(0));
    both.exchange(2, 0).await;
    eventually("its connections are lost", IN_TIME, || async {
        let log = both.gateway.log();
        assert!(!both.gateway.ended(), "{log}");
        (log.matches("RabbitMQ connection lost").count() == 2).then_some(())
    })
    .await;
    proxy.set_rule(|_| Then::Pass);
    let refused = "RabbitMQ cannot be reached";
    eventually("it has tried in vain", IN_TIME, || async {
        assert!(!both.gateway.ended(), "{}", both.gateway.log());
        both.gateway.log().contains(refused).then_some(())
    })
    .await;
    assert_eq!(both.broker.consumers("tidegate.award-points").await, 0);
    strace.detach().await;
    both.consuming().await;
    both.exchange(2, 0).await;
    // What RabbitMQ had, and had not confirmed when its connection was cut, is published again.
    let repeats = both.judge().await;
    assert!(repeats.calls == 0 && repeats.messages <= 6, "{repeats:?}");
    assert!(both.gateway.stop().await.success());
    assert!(!both.gateway.log().contains("panicked"), "{}", both.gateway.log());
}
