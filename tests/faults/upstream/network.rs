//! The way there: names, connections, TLS; and answers that are lost on the way back.

use std::{collections::BTreeSet, path::Path, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tidegate_tests::{Act, Gateway, RawHttp, eventually, raw_http::OK};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpSocket, TcpStream},
    process::{Child, Command},
    time::timeout,
};

use super::{AT_ONCE, Cases, IN_TIME, emit, results, settled, shown, waits};

/// Waits until an attempt of case `name` had `result`.
async fn tried(gateway: &Gateway, name: &str, result: &str) {
    let counted = format!("upstream=\"{name}\",result=\"{result}\"}}");
    eventually(&format!("{name} had {result}"), IN_TIME, || async {
        let metrics = gateway.text("/metrics").await;
        let line = metrics.lines().find(|line| line.contains(&counted))?;
        (!line.ends_with(" 0")).then_some(())
    })
    .await;
}

/// What is kept of the first attempt of case `name`, once it is: counted it is a moment before.
async fn kept(gateway: &Gateway, name: &str) -> Value {
    eventually(&format!("an attempt of {name} is kept"), IN_TIME, || async {
        let attempt = shown(gateway, name).await["attempts"][0].clone();
        attempt.is_object().then_some(attempt)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u6_connections_that_close_as_soon_as_they_are_idle_cost_nothing() {
    const EVENTS: u64 = 200;
    // It promises to keep them, and does not.
    let api = RawHttp::start(vec![Act::answer(OK)]).await;
    let upstream = format!("concurrency: 8, {AT_ONCE}");
    let gateway = Cases::default().add("closing", &api.url(), &upstream, "").start().await;
    for n in 0..EVENTS {
        emit(&gateway, "closing", &n.to_string()).await;
    }
    settled(&gateway, "closing", "delivered", EVENTS).await;
    let keys: BTreeSet<String> = api.got().iter().map(|got| got.key().to_owned()).collect();
    assert_eq!((api.count() as u64, keys.len() as u64), (EVENTS, EVENTS), "each exactly once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u14_s2_a_name_that_is_not_found_is_waited_for_and_one_that_turns_inward_is_refused() {
    let api = RawHttp::start(vec![Act::answer(OK)]).await;
    let url = format!("http://api.example:{}", api.port());
    let mut cases = Cases::default();
    cases.add("named", &url, AT_ONCE, "");
    let yaml = cases.yaml().replace("127.0.0.0/8", "127.0.0.1/32");
    let mut gateway = Gateway::new(&yaml);
    gateway.set_names("");
    gateway.run().await;
    emit(&gateway, "named", "1").await;
    tried(&gateway, "named", "dns").await;
    waits(&gateway, "named", 1).await;
    gateway.set_names("127.0.0.1 api.example\n");
    settled(&gateway, "named", "delivered", 1).await;
    assert_eq!(api.count(), 1);
    // The same listener by another address, which may not be called: the name is looked up, and
    // what it came to is looked at, for every connection.
    let inside = RawHttp::start_at("127.0.0.2", api.port()).await;
    gateway.set_names("127.0.0.2 api.example\n");
    emit(&gateway, "named", "2").await;
    tried(&gateway, "named", "refused_address").await;
    waits(&gateway, "named", 1).await;
    gateway.set_names("127.0.0.1 api.example\n");
    settled(&gateway, "named", "delivered", 2).await;
    assert_eq!((api.count(), inside.connections()), (2, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u17_a_port_nobody_listens_on_or_answers_at_is_tried_again() {
    let refusing = RawHttp::start(vec![Act::well()]).await;
    let closed = refusing.url();
    drop(refusing);
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let hole = socket.listen(1).expect("bound");
    let address = hole.local_addr().expect("bound");
    // Its queue is full once one more is not let in: from then on nothing is answered.
    let mut waiting = Vec::new();
    while let Ok(connected) = timeout(Duration::from_secs(1), TcpStream::connect(address)).await {
        waiting.push(connected.expect("a connection"));
    }
    let mut cases = Cases::default();
    cases.add("closed", &closed, AT_ONCE, "").add(
        "hole",
        &format!("http://{address}"),
        AT_ONCE,
        "",
    );
    let gateway = cases.start().await;
    for name in ["closed", "hole"] {
        emit(&gateway, name, "1").await;
        tried(&gateway, name, "connect").await;
        waits(&gateway, name, 1).await;
    }
    let detail = kept(&gateway, "hole").await;
    let took = detail["duration_ms"].as_f64().expect("a number");
    assert!((4_500.0..30_000.0).contains(&took), "5 s for a connect: {detail}");
    drop(waiting);
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = hole.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(OK.as_bytes()).await;
                let _ = stream.shutdown().await;
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            });
        }
    });
    settled(&gateway, "hole", "delivered", 1).await;
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u18_after_lost_answers_a_kill_and_a_replay_the_key_is_the_first_one() {
    let lost = vec![Act::Read];
    let torn = vec![Act::Read, Act::Reset];
    let held = vec![Act::Read, Act::Silence];
    let api = RawHttp::start(vec![lost, torn, held, Act::well()]).await;
    let mut gateway = Cases::default().add("losing", &api.url(), AT_ONCE, "").start().await;
    emit(&gateway, "losing", "1").await;
    let third = || async { (api.count() == 3).then_some(()) };
    eventually("the third attempt is under way", IN_TIME, third).await;
    gateway.kill().await;
    gateway.run().await;
    settled(&gateway, "losing", "delivered", 1).await;
    let replay = json!({ "filter": { "state": "delivered" } });
    let (status, said) = gateway.post("/api/v1/deliveries/replay", &replay).await;
    assert_eq!(status, 200, "{said}");
    eventually("it was sent again", IN_TIME, || async { (api.count() == 5).then_some(()) }).await;
    let keys: BTreeSet<String> = api.got().iter().map(|got| got.key().to_owned()).collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
}

// ===== TLS of other times =====

/// `openssl s_server` on loopback, and its port.
async fn s_server(folder: &Path, arguments: &[&str]) -> (Child, u16) {
    let mut child = Command::new("openssl")
        .args([
            "s_server",
            "-accept",
            "127.0.0.1:0",
            "-www",
            "-cert",
            "cert.pem",
            "-key",
            "key.pem",
        ])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("openssl(1) is installed");
    let mut lines = BufReader::new(child.stdout.take().expect("piped above")).lines();
    let accepts = async {
        loop {
            let line = lines.next_line().await.expect("text").expect("it says where it listens");
            if let Some(address) = line.strip_prefix("ACCEPT ") {
                let (_, port) = address.rsplit_once(':').expect("host and port");
                return port.parse().expect("a port");
            }
        }
    };
    let port = timeout(IN_TIME, accepts).await.expect("in time");
    // What it says from here on is nobody's concern, but must not fill the pipe.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u15_u16_tls_that_is_too_old_expired_or_of_another_name_is_said_and_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let old = tempfile::tempdir().expect("a folder");
    certify(folder.path(), 4096);
    certify(old.path(), 2001);
    let ca =
        |folder: &Path| format!("{AT_ONCE}, tls: {{ ca: '{}' }}", folder.join("ca.pem").display());
    let weak = ["-tls1", "-cipher", "ALL:@SECLEVEL=0"];
    let cbc = ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"];
    let (_tls1, tls1_port) = s_server(folder.path(), &weak).await;
    let (_cbc, cbc_port) = s_server(folder.path(), &cbc).await;
    let (_today, today_port) = s_server(folder.path(), &[]).await;
    let (_expired, expired_port) = s_server(old.path(), &[]).await;
    let silent = RawHttp::start(vec![vec![Act::Silence]]).await;
    let at = |port: u16| format!("https://localhost:{port}");
    let (known, bygone) = (ca(folder.path()), ca(old.path()));
    let mut cases = Cases::default();
    cases
        .add("tls1", &at(tls1_port), &known, "")
        .add("cbc", &at(cbc_port), &known, "")
        .add("expired", &at(expired_port), &bygone, "")
        .add("misnamed", &format!("https://127.0.0.1:{today_port}"), &known, "")
        .add("unknown", &at(today_port), AT_ONCE, "")
        .add("stalled", &at(silent.port()), &known, "")
        .add("today", &at(today_port), &known, "method: GET");
    let gateway = cases.start().await;
    let wrong = ["tls1", "cbc", "expired", "misnamed", "unknown"];
    for name in wrong.iter().chain(&["stalled", "today"]) {
        emit(&gateway, name, "1").await;
    }
    settled(&gateway, "today", "delivered", 1).await;
    for name in wrong {
        tried(&gateway, name, "tls").await;
        waits(&gateway, name, 1).await;
        let waiting = kept(&gateway, name).await;
        let said = waiting["detail"].as_str().expect("text");
        let why = match name {
            "tls1" => "ProtocolVersion",
            "cbc" => "HandshakeFailure",
            "expired" => "expired",
            "misnamed" => "not valid for name",
            _ => "UnknownIssuer",
        };
        assert!(said.starts_with("no TLS connection: ") && said.contains(why), "{name}: {said}");
    }
    tried(&gateway, "stalled", "connect").await;
    waits(&gateway, "stalled", 1).await;
    assert_eq!(results(&shown(&gateway, "today").await), ["2xx"]);
}

/// A private authority `ca.pem` in `folder`, and a certificate for localhost that ends in `year`.
fn certify(folder: &Path, year: i32) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = || rcgen::KeyPair::generate().expect("a key");
    let issuer = rcgen::CertifiedIssuer::self_signed(params, key()).expect("signed");
    let mut params = rcgen::CertificateParams::new(vec!["localhost".into()]).expect("a name");
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    let key = key();
    let cert = params.signed_by(&key, &issuer).expect("signed");
    let files =
        [("ca.pem", issuer.pem()), ("cert.pem", cert.pem()), ("key.pem", key.serialize_pem())];
    for (file, text) in files {
        std::fs::write(folder.join(file), text).expect("writable");
    }
}
