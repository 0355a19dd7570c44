//! Reloads: what is under way goes on, what is new takes effect, what is wrong changes nothing.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tidegate_tests::{
    Api, Gateway, Load, Product,
    amqp::{Message, Publisher, Subscriber, bind},
    eventually,
    product::answer,
    rabbitmq::{Node, Vhost},
};

use crate::events_to_apis::{numbers_by_path, one_route, order};

const IN_TIME: Duration = Duration::from_secs(90);

/// RabbitMQ's queue.
const QUEUE: &str = "tidegate.award-points";

/// Customers whose orders must not overtake each other.
const CUSTOMERS: u64 = 50;

/// Writes `yaml` as the configuration of `gateway`, in one step.
fn write(gateway: &Gateway, yaml: &str) {
    let (file, new) = (gateway.folder().join("gateway.yaml"), gateway.folder().join("new"));
    std::fs::write(&new, yaml).expect("writable");
    std::fs::rename(new, file).expect("the same disk");
}

/// Asks for a reload; its status and what it says.
async fn reload(gateway: &Gateway) -> (u16, Value) {
    gateway.post("/api/v1/reload", &json!({})).await
}

/// Writes `yaml`, and reloads it, which must succeed.
async fn change(gateway: &Gateway, yaml: &str) -> Value {
    write(gateway, yaml);
    let (status, said) = reload(gateway).await;
    assert_eq!(status, 200, "{said}");
    said
}

async fn is_bound(broker: &Vhost, queue: &str) {
    eventually("it consumes", IN_TIME, || async {
        broker.consumers(queue).await.eq(&1).then_some(())
    })
    .await;
}

/// The configuration of the `n`-th reload: something of everything changes.
fn variant(broker: &str, api: &str, n: u32) -> String {
    let upstream = format!(
        "    concurrency: {}\n    breaker: {{ failures: {} }}\n    timeout: {}s\n",
        16 + n % 3 * 8,
        5 + n % 2,
        10 + n % 4
    );
    let route = format!(
        "        prefetch: {}\n    order_by: .data.customerId\n    retry: {{ factor: {} }}\n",
        500 + n % 5 * 100,
        2 + n % 2
    );
    let mut yaml = one_route(broker, api, &upstream, &route);
    yaml.push_str(&format!("        headers: {{ X-Generation: '{n}' }}\n"));
    if n.is_multiple_of(2) {
        yaml.push_str(
            "
  audit:
    from: { rabbitmq: { bind: [{ exchange: orders, key: 'order.cancelled.#' }] } }
    to: { http: { upstream: loyalty, path: /audit } }
",
        );
    }
    yaml
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_reloads_under_load_lose_repeat_and_reorder_nothing() {
    const RATE: u32 = 5_000;
    let broker = Node::shared().await.vhost().await;
    let api = Product::start(|_| answer(200, &json!({}))).await;
    let config = |n| variant(&broker.url(), &api.url(), n);
    let gateway = Gateway::start(&config(0)).await;
    is_bound(&broker, QUEUE).await;
    let mut load = Load::start(&broker.url(), "orders", RATE, |n| order(n, CUSTOMERS));
    let some = |than: u64| {
        let load = &load;
        async move {
            eventually("more is published", IN_TIME, || async {
                (load.published() >= than).then_some(())
            })
            .await;
        }
    };
    some(u64::from(RATE)).await;
    let mut generations = 1;
    for n in 1..=50 {
        let before = load.published();
        if n % 2 == 0 {
            let wrong = config(n).replace("upstream: loyalty", "upstream: loyalti");
            write(&gateway, &wrong);
            let (status, said) = reload(&gateway).await;
            assert_eq!(status, 422, "{said}");
            assert!(said.to_string().contains("did you mean `loyalty`"), "{said}");
        } else {
            let said = change(&gateway, &config(n)).await;
            generations += 1;
            assert_eq!(said["generation"], generations, "{said}");
        }
        some(before + 200).await;
    }
    let published = load.stop().await;
    assert_eq!(load.confirmed(), published);
    eventually("all have arrived", IN_TIME, || async {
        (api.asked().len() as u64 >= published).then_some(())
    })
    .await;
    eventually("nothing is left in RabbitMQ", IN_TIME, || async {
        (broker.messages(QUEUE).await == 0).then_some(())
    })
    .await;
    let asked = api.asked();
    assert_eq!(asked.len() as u64, published, "each once");
    let by_path = numbers_by_path(&asked);
    assert_eq!(by_path.len() as u64, CUSTOMERS);
    assert_eq!(by_path.values().map(Vec::len).sum::<usize>() as u64, published);
    for (path, numbers) in by_path {
        assert!(numbers.is_sorted_by(|a, b| a < b), "{path}: {numbers:?}");
    }
    let seen: BTreeMap<&str, u64> = asked.iter().fold(BTreeMap::new(), |mut seen, request| {
        *seen.entry(request.headers["x-generation"].as_str()).or_default() += 1;
        seen
    });
    assert!(seen.len() > 20, "new configurations took effect under way: {seen:?}");
    assert_eq!(gateway.count("award-points", "dead").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c8_a_reload_waits_for_nothing_that_hangs_and_what_is_under_way_ends_as_it_began() {
    let broker = Node::shared().await.vhost().await;
    let slow = Api::with(|api| api.latency = Duration::from_secs(3)).await;
    let other = Api::start().await;
    let yaml = |api: &Api| one_route(&broker.url(), &api.url(), "", "    order_by: .data.n\n");
    let gateway = Gateway::start(&yaml(&slow)).await;
    is_bound(&broker, QUEUE).await;
    let publisher = Publisher::connect(&broker.url()).await;
    publisher.publish("orders", &[order(1, 10)]).await;
    eventually("the first is under way", IN_TIME, || async {
        gateway.count("award-points", "active").await.eq(&1).then_some(())
    })
    .await;
    change(&gateway, &yaml(&other)).await;
    assert_eq!(gateway.count("award-points", "active").await, 1, "it was not waited for");
    publisher.publish("orders", &[order(2, 10)]).await;
    eventually("the second goes where it goes now", IN_TIME, || async {
        (other.count() == 1).then_some(())
    })
    .await;
    eventually("both are delivered", IN_TIME, || async {
        gateway.count("award-points", "delivered").await.eq(&2).then_some(())
    })
    .await;
    assert_eq!((slow.count(), other.count()), (1, 1), "nothing was attempted twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c9_a_route_that_goes_leaves_its_deliveries_and_takes_them_up_when_it_is_back() {
    let broker = Node::shared().await.vhost().await;
    let api = Api::start().await;
    api.set_down(true);
    let with = one_route(&broker.url(), &api.url(), "", "    order_by: .data.customerId\n");
    let without = with.split("routes:").next().expect("a beginning").to_owned();
    let mut gateway = Gateway::start(&with).await;
    is_bound(&broker, QUEUE).await;
    let publisher = Publisher::connect(&broker.url()).await;
    let messages: Vec<Message> = (0..20).map(|n| order(n, 4)).collect();
    publisher.publish("orders", &messages).await;
    eventually("all are taken", IN_TIME, || async {
        let route = gateway.get("/api/v1/routes/award-points").await;
        let counts = &route["counts"];
        let held = counts["pending"].as_u64()? + counts["active"].as_u64()?;
        (held == 20).then_some(())
    })
    .await;
    let said = change(&gateway, &without).await;
    assert_eq!(said["changed"], json!(["routes.award-points"]));
    let route = gateway.get("/api/v1/routes/award-points").await;
    assert_eq!(route["state"], "orphaned", "{route}");
    api.set_down(false);
    eventually("nobody consumes, and nothing is bound", IN_TIME, || async {
        (broker.consumers(QUEUE).await == 0 && broker.bindings(QUEUE).await.is_empty())
            .then_some(())
    })
    .await;
    // Across a restart, too.
    assert!(gateway.stop().await.success());
    gateway.run().await;
    let before = api.accepted();
    assert_eq!(gateway.get("/api/v1/routes/award-points").await["state"], "orphaned");
    change(&gateway, &with).await;
    eventually("they are delivered", IN_TIME, || async {
        gateway.count("award-points", "delivered").await.eq(&20).then_some(())
    })
    .await;
    assert_eq!((before, api.accepted()), ((0, 0), (20, 0)));
    let accepted: Vec<_> = api.requests().into_iter().filter(|one| one.status == 200).collect();
    for (path, numbers) in numbers_by_path(&accepted) {
        assert!(numbers.is_sorted_by(|a, b| a < b), "{path}: {numbers:?}");
    }
    is_bound(&broker, QUEUE).await;
    assert_eq!(broker.bindings(QUEUE).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_bound_no_more_is_unbound_and_nobody_elses_is_touched() {
    let broker = Node::shared().await.vhost().await;
    let api = Api::start().await;
    let yaml =
        |key: &str| one_route(&broker.url(), &api.url(), "", "").replace("order.confirmed.#", key);
    let mut gateway = Gateway::start(&yaml("order.confirmed.#")).await;
    is_bound(&broker, QUEUE).await;
    // Somebody else's, on the same queue and the same exchange.
    bind(&broker.url(), QUEUE, "orders", "theirs.#").await;
    let keys = async || {
        let mut keys = broker.bindings(QUEUE).await;
        keys.sort();
        keys.into_iter().map(|(_, key)| key).collect::<Vec<_>>()
    };
    change(&gateway, &yaml("order.#")).await;
    eventually("the old one is gone", IN_TIME, || async {
        (keys().await == ["order.#", "theirs.#"]).then_some(())
    })
    .await;
    // One that went while nobody ran.
    assert!(gateway.stop().await.success());
    write(&gateway, &yaml("order.paid.#"));
    gateway.run().await;
    eventually("the one before is gone", IN_TIME, || async {
        (keys().await == ["order.paid.#", "theirs.#"]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_are_taken_all_the_time_by_the_rules_of_the_moment() {
    const SECRETS: [&str; 2] = ["first-key-0123456789", "second-key-0123456789"];
    let broker = Node::shared().await.vhost().await;
    let inbox = Subscriber::start(&broker.url(), "inbox", "loyalty", "#").await;
    let yaml = |key: &str, kind: &str| {
        format!(
            "\
broker: {{ rabbitmq: {{ url: '{}' }} }}
routes:
  hooks:
    from:
      webhook:
        path: /hooks
        verify: {{ api_key: {{ header: X-Key, keys: [{key}] }} }}
        event: {{ id: '{{.body.id}}', type: {kind} }}
    to: {{ rabbitmq: {{ exchange: loyalty, key: '{{.type}}' }} }}
",
            broker.url()
        )
    };
    let gateway = Gateway::start(&yaml(SECRETS[0], "a")).await;
    let url = format!("{}/hooks", gateway.webhooks().await);
    let send = async |key: &str, id: usize| {
        let client = tidegate_tests::gateway::client();
        let body = json!({ "id": id.to_string() }).to_string();
        let sent = client.post(&url).header("X-Key", key);
        let sent = sent.header("Content-Type", "application/json").body(body);
        sent.send().await.expect("no connection is refused or reset").status().as_u16()
    };
    assert_eq!(send(SECRETS[0], 0).await, 202);
    for round in 1..=10 {
        let (key, other) = (SECRETS[round % 2], SECRETS[(round + 1) % 2]);
        let kind = if round % 2 == 0 { "a" } else { "b" };
        let reloads = async { change(&gateway, &yaml(key, kind)).await };
        let sends = async {
            for id in 0..20 {
                let status = send(SECRETS[id % 2], round * 100 + id).await;
                assert!(matches!(status, 202 | 401), "{status}");
            }
        };
        tokio::join!(reloads, sends);
        assert_eq!((send(key, round * 1000).await, send(other, 7).await), (202, 401));
    }
    eventually("the last is published", IN_TIME, || async {
        inbox.taken().iter().any(|taken| taken.id() == "10000").then_some(())
    })
    .await;
    assert_eq!(inbox.count(), inbox.different());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c7_c10_files_are_watched_through_the_links_of_a_configmap_and_half_a_change_is_not_read() {
    let api = Api::start().await;
    let yaml = |path: &str| {
        format!(
            "\
broker: {{ embedded: {{}} }}
upstreams:
  u:
    url: {}
    auth: {{ bearer: '${{file:FOLDER/..data/token}}' }}
    egress: {{ allow: [127.0.0.0/8] }}
routes:
  r:
    from: {{ rabbitmq: {{ bind: [{{ exchange: orders, key: '#' }}] }} }}
    to: {{ http: {{ upstream: u, path: {path} }} }}
",
            api.url()
        )
    };
    let mut gateway = Gateway::new("");
    let folder = gateway.folder().join("mounted");
    // As the kubelet does it: a folder for each version, a link to it that is replaced, and links
    // through that one.
    let publish = |version: u32, path: &str, token: &str| {
        let data = folder.join(format!("..{version}"));
        std::fs::create_dir_all(&data).expect("writable");
        let text = yaml(path).replace("FOLDER", &folder.display().to_string());
        std::fs::write(data.join("gateway.yaml"), text).expect("writable");
        std::fs::write(data.join("token"), token).expect("writable");
        std::os::unix::fs::symlink(format!("..{version}"), folder.join("..new")).expect("a link");
        std::fs::rename(folder.join("..new"), folder.join("..data")).expect("the same disk");
    };
    publish(1, "/one", "first-token-0123456789");
    for file in ["gateway.yaml", "token"] {
        std::os::unix::fs::symlink(format!("..data/{file}"), folder.join(file)).expect("a link");
    }
    gateway.set_config(&folder);
    gateway.run().await;
    let generation = async || gateway.get("/readyz").await["config"]["generation"].clone();
    let paths = async |id: &str| {
        let emitted = gateway.verb(&["emit", "t", "--id", id, "--exchange", "orders"]).await;
        assert!(emitted.status.success(), "{emitted:?}");
        eventually("it arrives", IN_TIME, || async {
            let last = api.requests().last().cloned()?;
            last.headers.contains_key("idempotency-key").then_some(last)
        })
        .await
    };
    assert_eq!(paths("1").await.path, "/one");
    publish(2, "/two", "second-token-0123456789");
    eventually("the change is taken up", IN_TIME, || async {
        (generation().await == 2).then_some(())
    })
    .await;
    gateway.verb(&["emit", "t", "--id", "2", "--exchange", "orders"]).await;
    let second = eventually("it goes where it goes now", IN_TIME, || async {
        api.requests().into_iter().find(|request| request.path == "/two")
    })
    .await;
    assert_eq!(second.headers["authorization"], "Bearer second-token-0123456789");
    // A secret alone is a change, too.
    publish(3, "/two", "third-token-01234567890");
    eventually("the secret is taken up", IN_TIME, || async {
        (generation().await == 3).then_some(())
    })
    .await;
    // A file that is wrong changes nothing, and says so.
    publish(4, "two", "third-token-01234567890");
    let why = eventually("it is told", IN_TIME, || async {
        let said = gateway.get("/readyz").await;
        said["config"]["reload_problem"].as_str().map(str::to_owned)
    })
    .await;
    assert!(why.contains("routes.r.to.http.path"), "{why}");
    assert_eq!(generation().await, 3);
    assert!(gateway.text("/metrics").await.contains("tidegate_config_last_reload_success 0"));
    let ready = format!("{}/readyz", gateway.admin().await);
    let ready = tidegate_tests::gateway::client().get(ready).send().await.expect("an answer");
    assert!(ready.status().is_success(), "what is in force works as before: {ready:?}");
    let before = api.count();
    gateway.verb(&["emit", "t", "--id", "3", "--exchange", "orders"]).await;
    eventually("it goes where it went", IN_TIME, || async {
        (api.count() == before + 1 && api.requests()[before as usize].path == "/two").then_some(())
    })
    .await;
    assert!(!gateway.log().contains("token-0123"), "no secret is logged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_a_restart_changes_is_refused_by_name() {
    let broker = Node::shared().await.vhost().await;
    let api = Api::start().await;
    let yaml = one_route(&broker.url(), &api.url(), "", "");
    let gateway = Gateway::start(&yaml).await;
    let embedded = yaml.lines().skip(1).collect::<Vec<_>>().join("\n");
    write(&gateway, &format!("broker: {{ embedded: {{}} }}\n{embedded}\n"));
    let (status, said) = reload(&gateway).await;
    assert_eq!(status, 409, "{said}");
    assert!(said["detail"].as_str().unwrap_or_default().contains("broker.embedded"), "{said}");
    write(&gateway, &format!("{yaml}\nshutdown: {{ drain: 3s }}\nlog: {{ level: debug }}\n"));
    let (status, said) = reload(&gateway).await;
    assert_eq!(status, 200, "{said}");
    assert_eq!(said["changed"], json!(["log.level", "shutdown.drain"]));
    assert_eq!(reload(&gateway).await.1["changed"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_rabbitmq_is_taken_up_and_the_same_by_another_name_costs_no_connection() {
    let (first, second) = (Node::shared().await.vhost().await, Node::shared().await.vhost().await);
    let api = Api::start().await;
    let yaml = |broker: &str| one_route(broker, &api.url(), "", "");
    let gateway = Gateway::start(&yaml(&first.url())).await;
    is_bound(&first, QUEUE).await;
    let dialled = || gateway.log().matches("RabbitMQ connected").count();
    let connected = dialled();
    change(&gateway, &yaml(&first.url()).replace("url: 'amqp", "heartbeat: 9s, url: 'amqp")).await;
    Publisher::connect(&first.url()).await.publish("orders", &[order(1, 1)]).await;
    eventually("it is delivered", IN_TIME, || async { (api.count() == 1).then_some(()) }).await;
    assert_eq!(dialled(), connected, "nothing had to be closed for that");
    change(&gateway, &yaml(&second.url())).await;
    is_bound(&second, QUEUE).await;
    assert_eq!(first.consumers(QUEUE).await, 0);
    Publisher::connect(&second.url()).await.publish("orders", &[order(2, 1)]).await;
    eventually("it is delivered", IN_TIME, || async { (api.count() == 2).then_some(()) }).await;
}
