//! The log of a gateway whose every delivery fails.

use std::time::Duration;

use serde_json::Value;
use tidegate_tests::{Api, Gateway, eventually, gateway::client};

const IN_TIME: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_deliveries_do_not_flood_the_log_and_each_is_counted_in_it() {
    const DEAD: u64 = 200;
    let api = Api::with(|api| api.answer = tidegate::mock::AnswerConfig::status(404)).await;
    let yaml = format!(
        "\
broker: {{ embedded: {{}} }}
upstreams:
  api: {{ url: {}, egress: {{ allow: [127.0.0.0/8] }} }}
routes:
  hooks:
    from:
      webhook:
        path: /hooks
        verify: {{ none: {{}} }}
        split: '.body[]'
        event: {{ type: t }}
    to: {{ http: {{ upstream: api }} }}
",
        api.url()
    );
    let mut gateway = Gateway::start(&yaml).await;
    let items: Vec<u64> = (0..DEAD).collect();
    let url = format!("{}/hooks", gateway.webhooks().await);
    let request = client().post(url).header("Content-Type", "application/json");
    let answer = request.body(Value::from(items).to_string()).send().await.expect("an answer");
    assert!(answer.status().is_success(), "{answer:?}");
    eventually("all are dead", IN_TIME, || async {
        (gateway.count("hooks", "dead").await == DEAD).then_some(())
    })
    .await;
    assert!(gateway.stop().await.success());
    let summed = || async {
        let log = gateway.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let fields: Vec<Value> = lines.map(|line| line["fields"].clone()).collect();
        let said = |name: &str| {
            let said = fields.iter().filter(|fields| fields[name] == "delivery is dead");
            said.cloned().collect::<Vec<Value>>()
        };
        let (whole, left_out) = (said("message").len() as u64, said("line"));
        let left_out = left_out.iter().map(|line| line["suppressed"].as_u64().expect("a count"));
        (whole + left_out.sum::<u64>() == DEAD).then_some(whole)
    };
    let whole = eventually("every one is told or counted", IN_TIME, summed).await;
    assert!((10..=20).contains(&whole), "{whole} lines");
}
