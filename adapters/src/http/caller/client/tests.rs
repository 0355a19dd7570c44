//! The rate limit, as the upstream's socket sees it, when connecting is slow.

use tokio::{
    net::TcpStream,
    sync::{Notify, mpsc},
};

use futures_util::future::BoxFuture;

use super::*;
use crate::http::{
    testing::{
        Gates, Seen, Server, answer, api, api_config, delivery, prepare, target, target_config,
        write,
    },
    tls::tests::Authority,
};

/// An upstream whose connections wait for their turn to handshake and to answer.
struct Slow {
    server: Server,
    authority: Authority,
    /// A connection was accepted, and has not shaken hands.
    accepted: mpsc::Receiver<usize>,
    /// Let the n-th connection shake hands.
    handshake: [Arc<Notify>; 2],
    /// A request has arrived, on the n-th connection.
    arrived: mpsc::Receiver<usize>,
    /// Let one request be answered.
    answer: Arc<Notify>,
}

impl Slow {
    async fn start() -> Self {
        let authority = Authority::new();
        let acceptor = authority.acceptor("localhost", None);
        let handshake = [Arc::new(Notify::new()), Arc::new(Notify::new())];
        let answer_now = Arc::new(Notify::new());
        let (accept, accepted) = mpsc::channel(8);
        let (arrive, arrived) = mpsc::channel(8);
        let (turns, answers) = (handshake.clone(), Arc::clone(&answer_now));
        let server = Server::start(move |number, stream: TcpStream| {
            let (accept, arrive, acceptor) = (accept.clone(), arrive.clone(), acceptor.clone());
            let (turn, answers) = (Arc::clone(&turns[number.min(1)]), Arc::clone(&answers));
            async move {
                accept.send(number).await.unwrap();
                turn.notified().await;
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                while Seen::read(&mut stream).await.is_some() {
                    arrive.send(number).await.unwrap();
                    answers.notified().await;
                    write(&mut stream, answer("200 OK", "", "")).await;
                }
            }
        })
        .await;
        Self { server, authority, accepted, handshake, arrived, answer: answer_now }
    }

    fn api(&self) -> Arc<crate::http::caller::Api> {
        let mut config = api_config(&format!("https://localhost:{}/", self.server.address.port()));
        config.tls = Some(self.authority.trusted());
        api(&config)
    }
}

/// A gate whose second asking holds until it is let go.
#[derive(Debug, Default)]
struct Holding {
    asked: Gates,
    second: Notify,
    open: Notify,
}

impl Gate for Holding {
    fn pass(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.asked.pass().await;
            if self.asked.passed().len() == 2 {
                self.second.notify_one();
                self.open.notified().await;
            }
        })
    }

    fn pass_again(&self) -> BoxFuture<'_, ()> {
        self.asked.pass_again()
    }

    fn waited(&self) -> Duration {
        Duration::ZERO
    }
}

fn spawn(
    api: &Arc<crate::http::caller::Api>,
    gate: Arc<dyn Gate>,
) -> tokio::task::JoinHandle<Result<crate::Receipt, crate::Failure>> {
    let api = Arc::clone(api);
    tokio::spawn(async move {
        let delivery = delivery();
        let request = prepare(&target(&target_config(), &api), &delivery).unwrap();
        crate::http::testing::send(&api, request, &delivery, gate).await
    })
}

#[tokio::test]
async fn after_a_connect_the_gate_is_asked_before_the_request_is_sent() {
    let mut slow = Slow::start().await;
    let gate = Arc::new(Holding::default());
    let attempt = spawn(&slow.api(), Arc::clone(&gate) as _);
    slow.accepted.recv().await.unwrap();
    assert_eq!(gate.asked.passed(), ["pass"]);
    slow.handshake[0].notify_one();
    gate.second.notified().await;
    assert!(slow.arrived.try_recv().is_err(), "sent before the gate let it");
    gate.open.notify_one();
    slow.arrived.recv().await.unwrap();
    slow.answer.notify_one();
    attempt.await.unwrap().unwrap();
    assert_eq!(gate.asked.passed(), ["pass", "pass"]);
}

#[tokio::test]
async fn a_request_that_gets_anothers_connection_while_connecting_asks_the_gate() {
    let mut slow = Slow::start().await;
    let api = slow.api();
    slow.handshake[0].notify_one();
    let first = spawn(&api, Arc::new(Gates::default()));
    assert_eq!(slow.arrived.recv().await, Some(0));
    slow.accepted.recv().await.unwrap();

    // The second request dials, and its handshake does not come to an end.
    let gate = Arc::new(Holding::default());
    let second = spawn(&api, Arc::clone(&gate) as _);
    assert_eq!(slow.accepted.recv().await, Some(1));
    assert_eq!(gate.asked.passed(), ["pass"]);

    // The first is answered, and its connection comes free.
    slow.answer.notify_one();
    first.await.unwrap().unwrap();
    gate.second.notified().await;
    assert!(slow.arrived.try_recv().is_err(), "sent before the gate let it");
    gate.open.notify_one();
    assert_eq!(slow.arrived.recv().await, Some(0));
    slow.answer.notify_one();
    second.await.unwrap().unwrap();
    assert_eq!(gate.asked.passed(), ["pass", "pass"]);
}

#[tokio::test]
async fn what_a_request_has_dialled_is_its_own_and_goes_on_to_who_waits_longer() {
    let mut slow = Slow::start().await;
    let api = slow.api();
    let first = spawn(&api, Arc::new(Gates::default()));
    assert_eq!(slow.accepted.recv().await, Some(0));
    let second = spawn(&api, Arc::new(Gates::default()));
    assert_eq!(slow.accepted.recv().await, Some(1));
    // The first one's handshake never comes to an end.
    slow.handshake[1].notify_one();
    assert_eq!(slow.arrived.recv().await, Some(1));
    slow.answer.notify_one();
    second.await.unwrap().unwrap();
    assert_eq!(slow.arrived.recv().await, Some(1));
    slow.answer.notify_one();
    first.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_request_on_an_idle_connection_asks_the_gate_once() {
    let server = Server::answering(|_| answer("200 OK", "", "")).await;
    let api = api(&api_config(&server.url()));
    spawn(&api, Arc::new(Gates::default())).await.unwrap().unwrap();
    let mut asked = Vec::new();
    // The connection may still be on its way back to the pool the first time.
    for _ in 0..100 {
        let gate = Arc::new(Gates::default());
        spawn(&api, Arc::clone(&gate) as _).await.unwrap().unwrap();
        asked = gate.passed();
        if asked == ["pass"] {
            break;
        }
    }
    assert_eq!(asked, ["pass"]);
}

#[tokio::test]
async fn a_failed_connect_is_reported_without_another_token() {
    let server = Server::answering(|_| String::new()).await;
    let config = api_config(&server.url());
    drop(server);
    tokio::task::yield_now().await;
    let gate = Arc::new(Gates::default());
    let failure = spawn(&api(&config), Arc::clone(&gate) as _).await.unwrap().unwrap_err();
    assert_eq!(failure.result, Some(crate::AttemptResult::Connect));
    assert_eq!(gate.passed(), ["pass"]);
}

#[tokio::test]
async fn u15_a_handshake_that_stalls_is_given_up() {
    let mut slow = Slow::start().await;
    let attempt = spawn(&slow.api(), Arc::new(Gates::default()));
    slow.accepted.recv().await.unwrap();
    // From here on only time can pass.
    tokio::time::pause();
    let failure = attempt.await.unwrap().unwrap_err();
    assert_eq!(failure.result, Some(crate::AttemptResult::Connect));
    assert_eq!(failure.detail, "no connection: none within 5 s");
    assert_eq!(slow.server.connections(), 1);
}
