//! What an attacker would try, and what must not be seen by anyone.

use std::process::Stdio;

use serde_json::{Value, json};
use tidegate_tests::{
    Act, Gateway, RawHttp, eventually,
    gateway::{binary, client},
};
use tokio::process::Command;

use super::upstream::{AT_ONCE, Cases, IN_TIME, emit, emit_data, settled, shown};

/// Every secret of the story, by the variable it comes from.
const CANARIES: [(&str, &str); 11] = [
    ("BEARER", "canary-bearer-7f3a9c"),
    ("HEADER", "canary-header-c41f66"),
    ("QUERY", "canary/query+51bd02&x"),
    ("PASSWORD", "canary-password-0be1"),
    ("SIGNING", "whsec_Y2FuYXJ5LXNpZ25pbmctMDAwMDAwMDAwMDAw"),
    ("HMAC", "canary-hmac-882d1c"),
    ("CLIENT_SECRET", "canary-client-secret-3d"),
    ("URL_USER", "canary-url-user-19aa"),
    ("URL_PASSWORD", "canary-url-password-77"),
    ("WEBHOOK", "canary-webhook-key-5e5e"),
    ("OLD_WEBHOOK", "canary-webhook-old-4d4d"),
];

/// Never configured, but obtained from the token endpoint.
const TOKEN: &str = "canary-token-obtained-90c2";

fn story(echo: &RawHttp, tokens: &RawHttp, closed: &str) -> String {
    let (echo, tokens) = (echo.url(), tokens.url());
    let mut cases = Cases::default();
    let two = "breaker: off, retry: { initial_delay: 10ms, attempts: 2 }";
    let all = "auth: { bearer: '${BEARER}', headers: { X-App: '${HEADER}' }, \
               query: { api_key: '${QUERY}' }, \
               hmac: { header: X-Sig, secret: '${HMAC}', signed: '{raw}' } }";
    let basic = "auth: { basic: { username: ann, password: '${PASSWORD}' }, \
                 standard_webhooks: { secret: '${SIGNING}' } }";
    let oauth2 = format!(
        "auth: {{ oauth2: {{ token_url: '{tokens}', client_id: ours, \
         client_secret: '${{CLIENT_SECRET}}', scopes: [a] }} }}"
    );
    let user = |url: &str| url.replace("http://", "http://${URL_USER}:${URL_PASSWORD}@");
    cases
        .add("bearer", &echo, &format!("{all}, {two}"), "")
        .add("basic", &echo, &format!("{basic}, {two}"), "")
        .add("oauth2", &echo, &format!("{oauth2}, {two}"), "")
        .add("user", &user(&echo), two, "")
        .add(
            "closed",
            &user(closed),
            &format!("{all}, {two}").replace("bearer: '${BEARER}', ", ""),
            "",
        );
    let hooks = "  hooks:
    from:
      webhook:
        path: /hooks
        verify: { api_key: { header: X-Api-Key, keys: ['${WEBHOOK}', '${OLD_WEBHOOK}'] } }
        event: { type: t, data: .headers }
    to: { http: { upstream: bearer } }
";
    format!("{}{hooks}", cases.yaml())
}

/// An API that says back whatever secret it could have been sent, and one that hands out tokens.
async fn apis() -> (RawHttp, RawHttp) {
    let echoed: Vec<&str> = CANARIES.iter().map(|(_, secret)| *secret).chain([TOKEN]).collect();
    let echoed = echoed.join(" and ");
    let echo = format!(
        "HTTP/1.1 500 No\r\nx-echo: {echoed}\r\ncontent-length: {}\r\n\r\n{echoed}",
        echoed.len()
    );
    let token = json!({ "access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600 });
    let token = token.to_string();
    let tokens = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{token}",
        token.len()
    );
    let serve = |text: String| vec![vec![Act::Serve(text.into_bytes())]];
    (RawHttp::start(serve(echo)).await, RawHttp::start(serve(tokens)).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s5_s6_a_whole_story_at_trace_shows_no_secret_anywhere() {
    let (echo, tokens) = apis().await;
    let nobody = RawHttp::start(vec![Act::well()]).await;
    let closed = nobody.url();
    drop(nobody);
    let mut gateway = Gateway::new(&story(&echo, &tokens, &closed));
    CANARIES.iter().for_each(|(name, secret)| gateway.set(name, *secret));
    gateway.set("TIDEGATE__LOG__LEVEL", "trace");
    gateway.run().await;
    let names = ["bearer", "basic", "oauth2", "user", "closed"];
    // Its token is a secret from the moment it is obtained, which is before anyone can echo it.
    emit(&gateway, "oauth2", "1").await;
    settled(&gateway, "oauth2", "dead", 1).await;
    for name in ["bearer", "basic", "user", "closed"] {
        emit(&gateway, name, "1").await;
    }
    let hook = async |key: &str, body: &'static str| {
        let url = format!("{}/hooks", gateway.webhooks().await);
        let request = client().post(url).header("X-Api-Key", key).body(body);
        let request = request.header("Content-Type", "application/json");
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a body"))
    };
    let said = [
        hook(CANARIES[9].1, "{}").await,
        hook(CANARIES[10].1, "{not json").await,
        hook("canary-webhook-key-5e5f", "{}").await,
    ];
    assert_eq!(said.each_ref().map(|(status, _)| *status), [202, 400, 401]);
    for name in names.iter().chain(&["hooks"]) {
        settled(&gateway, name, "dead", 1).await;
    }
    let sent: String = echo.got().iter().map(|got| got.head.clone()).collect();
    for secret in [CANARIES[0].1, CANARIES[1].1, TOKEN] {
        assert!(sent.contains(secret), "`{secret}` was never sent");
    }
    gateway.post("/api/v1/reload", &Value::Null).await;
    let mut seen: Vec<String> = said.map(|(_, body)| body).into();
    for path in ["deliveries", "routes", "upstreams"] {
        seen.push(gateway.text(&format!("/api/v1/{path}")).await);
        for more in [&["--json"][..], &[]] {
            let output = gateway.verb(&[&[path, "list"], more].concat()).await;
            seen.push(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into());
        }
    }
    for path in ["/metrics", "/readyz", "/healthz"] {
        seen.push(gateway.text(path).await);
    }
    for name in names.iter().chain(&["hooks"]) {
        seen.push(shown(&gateway, name).await.to_string());
        seen.push(gateway.text(&format!("/api/v1/upstreams/{name}")).await);
    }
    assert!(gateway.stop().await.success());
    seen.push(gateway.log());
    for file in std::fs::read_dir(gateway.folder().join("queue")).expect("the queue's folder") {
        let bytes = std::fs::read(file.expect("a file").path()).expect("readable");
        seen.push(String::from_utf8_lossy(&bytes).into_owned());
    }
    let encoded =
        ["canary%2Fquery%2B51bd02%26x", "canary%2Fquery", "YW5uOmNhbmFyeS1wYXNzd29yZC0wYmUx"];
    let secrets = CANARIES.iter().map(|(_, secret)| *secret);
    for secret in secrets.chain([TOKEN]).chain(encoded) {
        for text in &seen {
            let at = text.find(secret);
            let around = |at: usize| text.get(at.saturating_sub(200)..(at + 60).min(text.len()));
            assert!(at.is_none(), "`{secret}` shows: {:?}", at.map(around));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s10_s11_what_an_event_holds_can_neither_add_a_header_nor_leave_the_path() {
    let (api, inside) =
        (RawHttp::start(vec![Act::well()]).await, RawHttp::start(vec![Act::well()]).await);
    let http = "path: '/members/{.data.who}/points', query: { q: '{.data.who}' }, \
                headers: { X-Who: '{.data.head}' }";
    let gateway =
        Cases::default().add("api", &format!("{}/v2", api.url()), AT_ONCE, http).start().await;
    let inject = ["a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\u{0}b", "a\u{7f}"];
    for (n, head) in inject.iter().enumerate() {
        emit_data(&gateway, "api", &format!("h-{n}"), &json!({ "who": "ann", "head": head })).await;
    }
    for (n, who) in ["..", ".", ""].iter().enumerate() {
        emit_data(&gateway, "api", &format!("p-{n}"), &json!({ "who": who, "head": "x" })).await;
    }
    settled(&gateway, "api", "dead", inject.len() as u64 + 3).await;
    assert_eq!(shown(&gateway, "api").await["reason"], "expression");
    assert_eq!(api.connections(), 0, "nothing was sent");
    let host = inside.url().replace("http://", "");
    let whos = [
        "../../admin",
        "%2e%2e/x",
        "a?b=c#d",
        "a\r\nX-Evil: 1",
        &format!("@{host}/"),
        &format!("//{host}"),
    ];
    for (n, who) in whos.iter().enumerate() {
        emit_data(&gateway, "api", &format!("e-{n}"), &json!({ "who": who, "head": "x" })).await;
    }
    settled(&gateway, "api", "delivered", whos.len() as u64).await;
    for got in api.got() {
        let line = got.head.lines().next().expect("a request line");
        let path = line.strip_prefix("POST ").and_then(|rest| rest.split('?').next());
        let who = path.and_then(|path| path.strip_prefix("/v2/members/")?.strip_suffix("/points"));
        assert!(who.is_some_and(|who| !who.contains(['/', '#'])), "{line}");
        assert_eq!((got.header("x-evil"), got.header("x-who")), (None, Some("x")), "{}", got.head);
    }
    assert_eq!(inside.connections(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s12_there_is_no_way_to_switch_the_check_of_certificates_off() {
    let api = "https://127.0.0.1:1";
    for key in ["verify: false", "insecure: true", "insecure_skip_verify: true", "ca: ''"] {
        let yaml = Cases::default().add("api", api, &format!("tls: {{ {key} }}"), "").yaml();
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("gateway.yaml");
        std::fs::write(&file, yaml).expect("writable");
        let mut check = Command::new(binary());
        let output = check.arg("check").arg("-c").arg(&file).stdin(Stdio::null()).output();
        let output = output.await.expect("the binary");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{key}: {said}");
        assert!(said.contains("tls"), "{key}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_proxies_of_the_environment_see_nothing() {
    let (api, proxy) =
        (RawHttp::start(vec![Act::well()]).await, RawHttp::start(vec![Act::well()]).await);
    let mut gateway = Gateway::new(&Cases::default().add("api", &api.url(), AT_ONCE, "").yaml());
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
    {
        gateway.set(name, proxy.url());
    }
    gateway.run().await;
    emit(&gateway, "api", "1").await;
    let gone = || async { (api.count() == 1).then_some(()) };
    eventually("it was sent", IN_TIME, gone).await;
    assert_eq!(proxy.connections(), 0);
}
