//! What an operator does to a running gateway: by the command line and by the admin API, on the
//! real binary.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Output,
    time::Duration,
};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tidegate::mock::AnswerConfig;
use tidegate_tests::{
    Api, Gateway,
    amqp::{Message, Publisher, Subscriber},
    clients, eventually,
    gateway::client,
    rabbitmq::{Node, Vhost},
};

use crate::{
    apis_to_events::{one_webhook, points, send},
    events_to_apis::{numbers_by_path, one_route, order},
};

const IN_TIME: Duration = Duration::from_secs(60);

const READ: &str = "canary-read-token-0123456789";
const OPERATE: &str = "canary-operate-token-0123456789";

/// What a verb said, when it went well.
async fn verb(gateway: &Gateway, arguments: &[&str]) -> String {
    let output = gateway.verb(arguments).await;
    let (said, complained) = texts(&output);
    assert!(output.status.success(), "{arguments:?}: {said}\n{complained}");
    said
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn parse(said: &str) -> Value {
    serde_json::from_str(said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

async fn is_bound(broker: &Vhost, queue: &str) {
    eventually("the queue is bound", IN_TIME, || async {
        broker.consumers(queue).await.eq(&1).then_some(())
    })
    .await;
}

async fn has(gateway: &Gateway, route: &str, state: &str, count: u64) {
    eventually(&format!("{route} has {count} {state}"), IN_TIME, || async {
        (gateway.count(route, state).await == count).then_some(())
    })
    .await;
}

async fn got(api: &Api, count: u64) {
    eventually("the API has got them", IN_TIME, || async { (api.count() >= count).then_some(()) })
        .await;
    assert_eq!(api.count(), count, "and no more");
}

fn orders(numbers: std::ops::Range<u64>) -> Vec<Message> {
    numbers.map(|n| order(n, 7)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_route_takes_in_and_waits_through_a_crash_and_goes_on_in_order() {
    let broker = Node::shared().await.vhost().await;
    let api = Api::start().await;
    let yaml = one_route(&broker.url(), &api.url(), "", "    order_by: .data.customerId\n");
    let mut gateway = Gateway::start(&yaml).await;
    is_bound(&broker, "tidegate.award-points").await;
    let publisher = Publisher::connect(&broker.url()).await;
    publisher.publish("orders", &orders(0..10)).await;
    got(&api, 10).await;
    has(&gateway, "award-points", "pending", 0).await;

    let said = verb(&gateway, &["routes", "pause", "award-points"]).await;
    assert!(said.contains("paused"), "{said}");
    publisher.publish("orders", &orders(10..200)).await;
    has(&gateway, "award-points", "pending", 190).await;
    gateway.kill().await;
    gateway.run().await;
    assert_eq!(gateway.get("/api/v1/routes/award-points").await["state"], "paused");
    publisher.publish("orders", &orders(200..210)).await;
    has(&gateway, "award-points", "pending", 200).await;
    assert_eq!(api.count(), 10, "nothing was attempted");
    let metrics = gateway.text("/metrics").await;
    assert!(metrics.contains("tidegate_route_paused{route=\"award-points\"} 1"), "{metrics}");
    assert_eq!(gateway.get("/healthz").await["alive"], true);

    let said = verb(&gateway, &["routes", "resume", "award-points", "--json"]).await;
    assert_eq!(parse(&said)["state"], "running");
    got(&api, 210).await;
    for (path, numbers) in numbers_by_path(&api.requests()) {
        assert!(numbers.is_sorted_by(|a, b| a < b), "{path}: {numbers:?}");
    }
    assert_eq!(gateway.count("award-points", "dead").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_route_of_webhooks_takes_in_and_waits_through_a_crash_and_goes_on_in_order() {
    let broker = Node::shared().await.vhost().await;
    let subscriber = Subscriber::start(&broker.url(), "points", "loyalty", "loyalty.#").await;
    let yaml = one_webhook(&broker.url(), "", "    order_by: .subject\n");
    let mut gateway = Gateway::start(&yaml).await;
    verb(&gateway, &["routes", "pause", "loyalty-webhooks"]).await;
    let base = gateway.webhooks().await;
    for n in 0..60 {
        let (status, answer) = send(&base, &points(n, 5)).await.expect("an answer");
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    }
    has(&gateway, "loyalty-webhooks", "pending", 60).await;
    gateway.kill().await;
    gateway.run().await;
    has(&gateway, "loyalty-webhooks", "pending", 60).await;
    assert_eq!(gateway.get("/api/v1/routes/loyalty-webhooks").await["state"], "paused");
    assert_eq!(subscriber.count(), 0, "nothing was published");
    verb(&gateway, &["routes", "resume", "loyalty-webhooks"]).await;
    eventually("all are published", IN_TIME, || async { (subscriber.count() >= 60).then_some(()) })
        .await;
    let mut subjects: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for event in subscriber.taken().iter().map(|message| message.json()) {
        let n = event["data"]["n"].as_u64().expect("its number");
        subjects.entry(event["subject"].to_string()).or_default().push(n);
    }
    assert_eq!(subjects.values().map(Vec::len).sum::<usize>(), 60, "each once");
    assert!(subjects.values().all(|numbers| numbers.is_sorted()), "{subjects:?}");
}

/// Two routes to `loyalty`, one to `mail`.
fn two_upstreams(broker: &str, loyalty: &str, mail: &str) -> String {
    let route = |name: &str, upstream: &str| {
        format!(
            "  {name}:
    from: {{ rabbitmq: {{ bind: [{{ exchange: orders, key: '#' }}] }} }}
    to: {{ http: {{ upstream: {upstream}, path: '/{name}' }} }}
"
        )
    };
    format!(
        "\
broker: {{ rabbitmq: {{ url: '{broker}' }} }}
upstreams:
  loyalty: {{ url: {loyalty}, egress: {{ allow: [127.0.0.0/8] }} }}
  mail: {{ url: {mail}, egress: {{ allow: [127.0.0.0/8] }} }}
routes:
{}{}{}",
        route("award", "loyalty"),
        route("tell", "loyalty"),
        route("write", "mail")
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_upstream_holds_all_its_routes_and_no_other_through_a_crash() {
    let broker = Node::shared().await.vhost().await;
    let (loyalty, mail) = (Api::start().await, Api::start().await);
    let yaml = two_upstreams(&broker.url(), &loyalty.url(), &mail.url());
    let mut gateway = Gateway::start(&yaml).await;
    for route in ["award", "tell", "write"] {
        is_bound(&broker, &format!("tidegate.{route}")).await;
    }
    let said = verb(&gateway, &["upstreams", "pause", "loyalty"]).await;
    assert!(said.contains("paused"), "{said}");
    let publisher = Publisher::connect(&broker.url()).await;
    publisher.publish("orders", &orders(0..40)).await;
    got(&mail, 40).await;
    has(&gateway, "award", "pending", 40).await;
    has(&gateway, "tell", "pending", 40).await;
    gateway.kill().await;
    gateway.run().await;
    publisher.publish("orders", &orders(40..50)).await;
    got(&mail, 50).await;
    has(&gateway, "award", "pending", 50).await;
    has(&gateway, "tell", "pending", 50).await;
    assert_eq!(loyalty.count(), 0, "nothing was attempted");
    let shown = gateway.get("/api/v1/upstreams").await;
    let paused: Vec<_> = shown["upstreams"].as_array().expect("a list").iter().collect();
    assert!(paused.iter().all(|one| one["paused"] == (one["name"] == "loyalty")), "{shown}");
    let metrics = gateway.text("/metrics").await;
    assert!(metrics.contains("tidegate_upstream_paused{upstream=\"loyalty\"} 1"), "{metrics}");
    assert!(metrics.contains("tidegate_upstream_paused{upstream=\"mail\"} 0"), "{metrics}");
    verb(&gateway, &["upstreams", "resume", "loyalty"]).await;
    got(&loyalty, 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_closes_an_open_breaker_at_once() {
    let broker = Node::shared().await.vhost().await;
    let api = Api::start().await;
    api.set_down(true);
    let upstream = "    breaker: { failures: 3, open: 1h, open_max: 1h }\n    \
                    retry: { initial_delay: 50ms, max_delay: 100ms }\n";
    let gateway = Gateway::start(&one_route(&broker.url(), &api.url(), upstream, "")).await;
    is_bound(&broker, "tidegate.award-points").await;
    Publisher::connect(&broker.url()).await.publish("orders", &orders(0..30)).await;
    has(&gateway, "award-points", "pending", 30).await;
    eventually("its breaker is open", IN_TIME, || async {
        let state = gateway.get("/api/v1/upstreams/loyalty").await["breaker"]["state"].clone();
        (state == "open").then_some(())
    })
    .await;
    api.set_down(false);
    let said = parse(&verb(&gateway, &["upstreams", "reset", "loyalty", "--json"]).await);
    assert_eq!(said["breaker"]["state"], "closed", "{said}");
    eventually("all have arrived", IN_TIME, || async { (api.accepted().0 == 30).then_some(()) })
        .await;
}

/// Idempotency keys that the API got, by the number of the order.
fn keys(api: &Api) -> BTreeMap<u64, BTreeSet<String>> {
    let mut keys: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for request in api.requests() {
        let body = parse(&request.body);
        let key = request.idempotency_key().expect("a key").to_owned();
        keys.entry(body["n"].as_u64().expect("its number")).or_default().insert(key);
    }
    keys
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x11_dead_ones_are_replayed_by_filter_with_the_key_they_had_and_others_discarded() {
    const DEAD: u64 = 40;
    let broker = Node::shared().await.vhost().await;
    let api = Api::with(|api| {
        api.script = (0..DEAD).map(|_| AnswerConfig::status(404)).collect();
    })
    .await;
    let gateway = Gateway::start(&one_route(&broker.url(), &api.url(), "", "")).await;
    is_bound(&broker, "tidegate.award-points").await;
    let publisher = Publisher::connect(&broker.url()).await;
    publisher.publish("orders", &orders(0..DEAD)).await;
    has(&gateway, "award-points", "dead", DEAD).await;
    let junk = Message {
        key: "order.confirmed.v1".to_owned(),
        content_type: "application/cloudevents+json",
        body: b"{".to_vec(),
    };
    publisher.publish("orders", &[junk]).await;
    has(&gateway, "award-points", "dead", DEAD + 1).await;
    let before = keys(&api);

    let rejected = ["deliveries", "replay", "--route", "award-points", "--reason", "rejected"];
    let dry = verb(&gateway, &[&rejected[..], &["--dry-run", "--json"]].concat()).await;
    assert_eq!(parse(&dry), json!({ "matched": DEAD, "routes": { "award-points": DEAD } }));
    assert_eq!((gateway.count("award-points", "dead").await, api.count()), (DEAD + 1, DEAD));
    let refused = gateway.verb(&rejected).await;
    let (_, why) = texts(&refused);
    assert_eq!((refused.status.code(), why.contains("--yes")), (Some(2), true), "{why}");
    assert_eq!((gateway.count("award-points", "dead").await, api.count()), (DEAD + 1, DEAD));

    let three = [&rejected[..], &["--limit", "3", "--yes", "--json"]].concat();
    assert_eq!(parse(&verb(&gateway, &three).await)["replayed"], 3);
    has(&gateway, "award-points", "delivered", 3).await;
    let said = verb(&gateway, &[&rejected[..], &["--yes"]].concat()).await;
    assert!(said.starts_with(&format!("replayed: {}\n", DEAD - 3)), "{said}");
    has(&gateway, "award-points", "delivered", DEAD).await;
    assert_eq!(api.count(), 2 * DEAD);
    assert_eq!(keys(&api), before, "the second attempt has the key of the first");
    assert!(before.values().all(|keys| keys.len() == 1));

    let said = verb(&gateway, &["deliveries", "discard", "--reason", "invalid", "--yes"]).await;
    assert!(said.starts_with("discarded: 1\n"), "{said}");
    assert_eq!(gateway.count("award-points", "discarded").await, 1);
    assert_eq!(gateway.count("award-points", "dead").await, 0);
    let metrics = gateway.text("/metrics").await;
    let discarded = "route=\"award-points\",outcome=\"discarded\",reason=\"\"} 1\n";
    assert!(metrics.contains(discarded), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_ones_are_replayed_and_discarded_by_id_if_their_state_allows() {
    let broker = Node::shared().await.vhost().await;
    let api = Api::start().await;
    let gateway = Gateway::start(&one_route(&broker.url(), &api.url(), "", "")).await;
    is_bound(&broker, "tidegate.award-points").await;
    Publisher::connect(&broker.url()).await.publish("orders", &orders(0..1)).await;
    has(&gateway, "award-points", "delivered", 1).await;
    let listed = gateway.get("/api/v1/deliveries").await;
    let id = listed["deliveries"][0]["id"].as_str().expect("an id").to_owned();

    let discard = gateway.verb(&["deliveries", "discard", &id]).await;
    let (_, why) = texts(&discard);
    assert_eq!(discard.status.code(), Some(1), "{why}");
    assert!(why.contains("409") && why.contains("is delivered; only pending and dead"), "{why}");
    verb(&gateway, &["routes", "pause", "award-points"]).await;
    let said = parse(&verb(&gateway, &["deliveries", "replay", &id, "--json"]).await);
    assert_eq!(
        (&said["replayed"], &said["deliveries"][0]["state"]),
        (&json!(1), &json!("pending"))
    );
    has(&gateway, "award-points", "pending", 1).await;
    let both = gateway.verb(&["deliveries", "discard", "999999", &id]).await;
    let (said, why) = texts(&both);
    assert_eq!(both.status.code(), Some(1), "one of two: {why}");
    assert!(why.contains("there is no delivery `999999`") && said.contains("discarded"), "{said}");
    has(&gateway, "award-points", "discarded", 1).await;
    verb(&gateway, &["routes", "resume", "award-points"]).await;
    assert_eq!(api.count(), 1, "it was called once, before all this");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_are_not_there_and_words_that_mean_nothing_are_refused() {
    let api = Api::start().await;
    let mut gateway = Gateway::new(&embedded(&api.url(), ""));
    gateway.run().await;
    for (arguments, code, says) in [
        (&["routes", "pause", "award-point"][..], 1, "did you mean `award-points`?"),
        (&["upstreams", "reset", "loyalti"], 1, "did you mean `loyalty`?"),
        (&["deliveries", "replay"], 2, "say --all"),
        (&["deliveries", "discard", "--limit", "5"], 2, "say --all"),
        (&["deliveries", "discard", "1", "--all"], 2, "IDs stand alone"),
        (&["deliveries", "discard", "--all"], 2, "no terminal to ask on"),
        (&["deliveries", "replay", "--route", "x", "--yes"], 1, "there is no route `x`"),
        (&["deliveries", "discard", "--state", "delivered", "--yes"], 1, "only pending and dead"),
    ] {
        let output = gateway.verb(arguments).await;
        let (_, why) = texts(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {why}");
        assert!(why.contains(says), "{arguments:?}: {why}");
    }
    let said = verb(&gateway, &["deliveries", "discard", "--all", "--yes"]).await;
    assert_eq!(said, "discarded: 0\n");
}

/// One route on the embedded broker, and further keys.
fn embedded(api: &str, more: &str) -> String {
    format!(
        "\
broker: {{ embedded: {{}} }}
upstreams:
  loyalty: {{ url: {api}, egress: {{ allow: [127.0.0.0/8] }} }}
routes:
  award-points:
    from: {{ rabbitmq: {{ bind: [{{ exchange: orders, key: '#' }}] }} }}
    to: {{ http: {{ upstream: loyalty, path: '/points' }} }}
    reply: {{ exchange: orders-done, event: {{ type: done }} }}
{more}"
    )
}

const TOKENS: &str = "\
admin:
  tokens:
    dashboard: { token: canary-read-token-0123456789, role: read }
    oncall: { token: canary-operate-token-0123456789, role: operate }
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s8_a_token_that_may_read_operates_nothing_and_who_operates_is_logged() {
    let api = Api::start().await;
    let gateway = Gateway::start(&embedded(&api.url(), TOKENS)).await;
    let base = gateway.admin().await;
    for path in [
        "routes/award-points/pause",
        "routes/award-points/reply/resume",
        "upstreams/loyalty/pause",
        "upstreams/loyalty/reset",
        "deliveries/1/replay",
        "deliveries/discard",
        "reload",
    ] {
        let url = format!("{base}/api/v1/{path}");
        for (token, expected) in [(READ, 403), ("another", 401)] {
            let answer = client().post(&url).bearer_auth(token).send().await.expect("an answer");
            assert_eq!(answer.status().as_u16(), expected, "{path}");
        }
    }
    let get = client().get(format!("{base}/api/v1/routes/award-points")).bearer_auth(READ);
    let shown = get.send().await.expect("an answer").text().await.expect("a body");
    assert_eq!(parse(&shown)["paused"], false);
    let pause = client().post(format!("{base}/api/v1/routes/award-points/pause"));
    let answer = pause.bearer_auth(OPERATE).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    eventually("it is logged", IN_TIME, || async {
        let log = gateway.log();
        let mut lines = log.lines();
        let line = lines.find(|line| line.contains("route paused"))?;
        assert!(line.contains("\"oncall\"") && line.contains("award-points"), "{line}");
        Some(())
    })
    .await;
    let log = gateway.log();
    assert!(!log.contains(READ) && !log.contains(OPERATE), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_tells_what_changed_or_every_problem_and_exits_accordingly() {
    let api = Api::start().await;
    let gateway = Gateway::start(&embedded(&api.url(), "")).await;
    let file = gateway.folder().join("gateway.yaml");
    let good = std::fs::read_to_string(&file).expect("readable");
    let hash = gateway.get("/readyz").await["config"]["hash"].clone();
    let said = verb(&gateway, &["reload"]).await;
    assert!(said.starts_with("nothing has changed: generation 1"), "{said}");

    std::fs::write(&file, good.replace("upstream: loyalty", "upstream: loyalti"))
        .expect("writable");
    let refused = gateway.verb(&["reload"]).await;
    let (_, why) = texts(&refused);
    assert_eq!(refused.status.code(), Some(78), "{why}");
    for part in ["gateway.yaml:7:", "routes.award-points.to.http.upstream", "loyalty"] {
        assert!(why.contains(part), "no `{part}` in:\n{why}");
    }
    let json = gateway.verb(&["reload", "--json"]).await;
    let (said, _) = texts(&json);
    assert_eq!(parse(&said)["problems"][0]["line"], 7, "{said}");
    let config = gateway.get("/readyz").await["config"].clone();
    assert_eq!((&config["reload_failed"], &config["hash"]), (&json!(true), &hash), "{config}");
    let metrics = gateway.text("/metrics").await;
    assert!(metrics.contains("tidegate_config_last_reload_success 0\n"), "{metrics}");

    std::fs::write(&file, good.replace("/points", "/members")).expect("writable");
    let said = verb(&gateway, &["reload"]).await;
    assert!(said.contains("generation 2") && said.contains("  routes.award-points\n"), "{said}");
    let config = gateway.get("/readyz").await["config"].clone();
    assert_eq!((&config["reload_failed"], &config["generation"]), (&json!(false), &json!(2)));
    let metrics = gateway.text("/metrics").await;
    for line in [
        format!("tidegate_config_info{{hash={}}} 1\n", config["hash"]),
        "tidegate_config_generation 2\n".to_owned(),
        "tidegate_config_last_reload_success 1\n".to_owned(),
        "tidegate_config_reloads_total{result=\"changed\"} 1\n".to_owned(),
        "tidegate_config_reloads_total{result=\"unchanged\"} 1\n".to_owned(),
        "tidegate_config_reloads_total{result=\"invalid\"} 2\n".to_owned(),
    ] {
        assert!(metrics.contains(&line), "no `{line}` in:\n{metrics}");
    }
}

/// Asks as an operation is described; what to show the validator.
async fn called(base: &str, method: &str, path: &str, url: &str, body: Option<&Value>) -> Value {
    let url = format!("{base}{url}");
    let request = match (method, body) {
        ("get", _) => client().get(url),
        (_, None) => client().post(url),
        (_, Some(body)) => {
            let cloudevent = body.get("specversion").is_some();
            let kind = if cloudevent { "application/cloudevents+json" } else { "application/json" };
            client().post(url).header("Content-Type", kind).body(body.to_string())
        }
    };
    let answer = request.send().await.expect("an answer");
    let status = answer.status().as_u16();
    let kind = answer.headers()["content-type"].to_str().expect("text");
    let kind = kind.split(';').next().unwrap_or_default().to_owned();
    let text = answer.text().await.expect("a body");
    let body = if kind == "text/plain" { Value::from(text) } else { parse(&text) };
    json!({
        "path": path, "method": method, "status": status, "content_type": kind, "body": body,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_that_is_described_answers_as_it_is_described() {
    let api = Api::with(|api| api.script = vec![AnswerConfig::status(404)]).await;
    let gateway = Gateway::start(&embedded(&api.url(), "")).await;
    let base = gateway.admin().await;
    let event = |id: &str| {
        let data = json!({ "n": 1 });
        json!({ "specversion": "1.0", "id": id, "source": "/s", "type": "t", "data": data })
    };
    for (id, state) in [("one", "dead"), ("two", "delivered")] {
        let url = "/api/v1/events?exchange=orders";
        let said = called(&base, "post", "/api/v1/events", url, Some(&event(id))).await;
        assert_eq!(said["status"], 200, "{said}");
        has(&gateway, "award-points", state, 1).await;
    }
    let listed = gateway.get("/api/v1/deliveries?state=dead").await;
    let id = listed["deliveries"][0]["id"].as_str().expect("an id");
    let document = gateway.get("/openapi.json").await;
    let mut answers = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let name = if path.contains("upstreams") { "loyalty" } else { "award-points" };
            let mut url = path.replace("{name}", name).replace("{id}", id);
            let body = match operation["operationId"].as_str().expect("an id") {
                "publishEvent" => {
                    url.push_str("?exchange=orders");
                    Some(event("three"))
                }
                "replayDeliveries" | "discardDeliveries" => Some(json!({ "filter": {} })),
                _ => None,
            };
            let said = called(&base, method, path, &url, body.as_ref()).await;
            // What one operation did may stand in the way of the next.
            let fine = said["status"] == 200 || said["status"] == 409;
            assert!(fine, "{method} {url}: {said}");
            answers.push(said);
            let elsewhere = url.replace(name, "none").replace(&format!("/{id}"), "/999999");
            let wrong = json!({ "wrong": true });
            answers.push(called(&base, method, path, &elsewhere, Some(&wrong)).await);
        }
    }
    assert!(answers.len() >= 48, "{}", answers.len());
    let wrong = clients::describe(&document, &Value::from(answers)).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}
