//! What is accepted: the shipped files, the contract's examples, and every default.

use std::time::Duration;

use tidegate_adapters::{
    http::{
        BodyConfig, ClientAuth, Encode, HmacAlgorithm, HmacEncoding, HttpTargetConfig, RetryOn,
        StatusPattern, webhook::VerifyConfig,
    },
    rabbitmq::{BindConfig, ConsumerConfig, Envelope, OnUnroutable, PublisherConfig},
};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn source(config: &Config, route: &str) -> ConsumerConfig {
    let Source::Rabbitmq(consumer) = &config.routes[route].from else { panic!("a queue") };
    consumer.clone()
}

fn target(config: &Config, route: &str) -> HttpTargetConfig {
    let Target::Http(target) = &config.routes[route].to else { panic!("an API") };
    target.clone()
}

fn publisher(config: &Config, route: &str) -> PublisherConfig {
    let Target::Rabbitmq(target) = &config.routes[route].to else { panic!("an exchange") };
    target.clone()
}

#[test]
fn the_shipped_configurations_load_without_a_warning() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    for (path, routes) in [("quickstart.yaml", 1), ("plant-based-pizza", 12)] {
        let loaded = load(&[root.join(path)], &Environment::default());
        let loaded = loaded.unwrap_or_else(|report| panic!("{report}"));
        assert_eq!(loaded.warnings, [], "{path}");
        assert_eq!(loaded.config.routes.len(), routes, "{path}");
    }
}

#[test]
fn an_empty_file_is_all_defaults() {
    for empty in ["", "# nothing\n", "---\n", "{}\n", "queue:\nroutes: {}\nupstreams:\n"] {
        let loaded = load_text(empty).unwrap();
        assert_eq!(loaded.warnings.len(), 1);
        assert_eq!(loaded.warnings[0].message, "there are no routes: nothing will be delivered");
    }
}

#[test]
fn settings_default_as_documented() {
    let Settings { server, admin, queue, broker, shutdown, log, telemetry } = accepted("").settings;
    assert_eq!(server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(server.public_url, None);
    assert_eq!(server.max_body, 1 << 20);
    assert_eq!(server.max_connections.get(), 10_000);
    assert_eq!(server.max_buffered, 256 << 20);
    assert_eq!(server.header_timeout, 10 * SECOND);
    assert_eq!(server.body_timeout, 30 * SECOND);
    assert!(server.tls.is_none());
    assert_eq!(admin.listen.to_string(), "127.0.0.1:9090");
    assert!(admin.tokens.is_empty());
    assert_eq!(queue.sqlite.path, Path::new("data/tidegate.db"));
    assert_eq!(queue.max_size, 8 << 30);
    assert!((queue.max_route_share - 0.5).abs() < f64::EPSILON);
    assert_eq!(queue.keep.delivered, DAY);
    assert_eq!(queue.keep.dead, 30 * DAY);
    let Broker::Rabbitmq(rabbitmq) = broker else { panic!("{broker:?}") };
    assert_eq!(rabbitmq.url.expose(), "amqp://guest:guest@127.0.0.1:5672/%2f");
    assert_eq!(rabbitmq.heartbeat, 10 * SECOND);
    assert!(rabbitmq.tls.is_none());
    assert_eq!(shutdown.drain, 25 * SECOND);
    assert_eq!(log.level, LogLevel::Info);
    assert_eq!(log.format, LogFormat::Text);
    assert!(telemetry.is_none());
}

/// It shows defaults as they are: writing them out changes nothing.
#[test]
fn every_key_yaml_sets_what_would_be_there_without_it() {
    let written = accepted(&every_key());
    let without = accepted("upstreams: { loyalty: { url: 'https://a.example' } }\n");
    let (page, none) = (&written.settings, &without.settings);
    for (page, none) in [
        (format!("{:?}", page.queue), format!("{:?}", none.queue)),
        (format!("{:?}", page.broker), format!("{:?}", none.broker)),
        (format!("{:?}", page.shutdown), format!("{:?}", none.shutdown)),
        (format!("{:?}", page.log), format!("{:?}", none.log)),
        (page.admin.listen.to_string(), none.admin.listen.to_string()),
    ] {
        assert_eq!(page, none);
    }
    // Of the listener the address that senders call is an example.
    let server = ServerConfig { public_url: None, ..page.server.clone() };
    assert_eq!(format!("{server:?}"), format!("{:?}", none.server));

    let (page, none) = (&written.upstreams["loyalty"], &without.upstreams["loyalty"]);
    assert_eq!((page.timeout, page.concurrency), (none.timeout, none.concurrency));
    assert_eq!(format!("{:?}", page.retry), format!("{:?}", none.retry));
    assert_eq!(format!("{:?}", page.breaker), format!("{:?}", none.breaker));
}

#[test]
fn traces_want_a_collector_and_default_to_one_in_ten() {
    let telemetry = |yaml: &str| accepted(yaml).settings.telemetry.unwrap();
    let default = telemetry("telemetry: { otlp: 'http://127.0.0.1:4317' }\n");
    assert_eq!(default.otlp.as_str(), "http://127.0.0.1:4317/");
    assert!((default.sample - 0.1).abs() < f64::EPSILON);
    for sample in ["0", "1", "0.25"] {
        let yaml = format!("telemetry: {{ otlp: 'https://c/v1/traces', sample: {sample} }}\n");
        assert!((telemetry(&yaml).sample - sample.parse::<f64>().unwrap()).abs() < f64::EPSILON);
    }
}

#[test]
fn the_embedded_broker_needs_no_more_than_its_name() {
    for yaml in ["broker: { embedded: {} }\n", "broker:\n  embedded:\n"] {
        assert!(matches!(accepted(yaml).settings.broker, Broker::Embedded(_)));
    }
    for yaml in ["broker: {}\n", "broker:\n", "broker:\n  rabbitmq:\n"] {
        assert!(matches!(accepted(yaml).settings.broker, Broker::Rabbitmq(_)));
    }
}

#[test]
fn upstreams_default_as_documented() {
    let config = accepted(&with("", ""));
    let upstream = &config.upstreams["api"];
    assert_eq!(upstream.api.url.as_str(), "https://api.example/");
    assert!(upstream.api.headers.is_empty());
    assert!(upstream.api.auth.bearer.is_none() && upstream.api.auth.headers.is_empty());
    assert!(upstream.api.tls.is_none() && upstream.api.proxy.is_none());
    assert!(upstream.api.retry_after.is_none());
    assert!(upstream.api.egress.allow.is_empty());
    assert_eq!(upstream.timeout, 10 * SECOND);
    assert_eq!(upstream.concurrency.get(), 64);
    assert!(upstream.rate_limit.is_empty());
    let retry = RetryConfig {
        initial_delay: SECOND,
        factor: 2.0,
        max_delay: 15 * MINUTE,
        jitter: 0.2,
        attempts: None,
        within: Some(3 * DAY),
        retry_after_max: HOUR,
    };
    assert_eq!(upstream.retry, retry);
    assert_eq!(config.routes["r"].retry, retry);
    let breaker = upstream.breaker.as_ref().unwrap();
    assert_eq!((breaker.failures.get(), breaker.open), (5, 10 * SECOND));
    assert_eq!(breaker.open_max, 5 * MINUTE);
}

#[test]
fn routes_default_as_documented() {
    let config = accepted(&with("", ""));
    let route = &config.routes["r"];
    assert!(route.description.is_none() && route.when.is_none() && route.order_by.is_none());
    assert_eq!(route.on_dead, OnDead::Continue);
    let source = source(&config, "r");
    assert_eq!(source.queue, "tidegate.r");
    assert_eq!(source.bind, [BindConfig { exchange: "e".into(), key: "k".into() }]);
    assert!(source.arguments.is_empty() && source.declare);
    assert_eq!((source.prefetch, source.max_message), (1000, 16 << 20));
    assert_eq!(source.dedupe, Some(10 * MINUTE));
    assert!(source.event.kind.is_none() && source.event.data.is_none());
    let target = target(&config, "r");
    assert_eq!((target.upstream.as_str(), target.method.as_str()), ("api", "POST"));
    assert!(target.path.is_none() && target.query.is_empty() && target.headers.is_empty());
    assert!(matches!(target.body, BodyConfig::Data));
    assert_eq!(target.encode, Encode::Json);
    assert_eq!(target.success, [StatusPattern::Class(2)]);
    let code = |code| RetryOn::Status(StatusPattern::Code(code));
    let class = RetryOn::Status(StatusPattern::Class(5));
    assert_eq!(
        target.retry_on,
        [code(408), code(425), code(429), class, RetryOn::Connect, RetryOn::Ambiguous]
    );
    assert!(target.outcome.is_none());
    assert_eq!(target.idempotency_header.as_deref(), Some("Idempotency-Key"));
    assert_eq!(target.max_response, 64 << 10);
}

/// The examples of the contract that are built, each key of them once.
const CONTRACT: &str = r#"
server:
  listen: 127.0.0.1:8080
  public_url: https://hooks.example.com
  max_body: 1MiB
admin:
  listen: 0.0.0.0:9090
  tokens:
    oncall: { token: '${ONCALL}', role: operate }
queue:
  sqlite: { path: data/tidegate.db }
  keep: { delivered: 24h, dead: 30d }
broker:
  rabbitmq:
    url: amqps://guest:guest@127.0.0.1:5671/%2f
    heartbeat: 10s
shutdown: { drain: 25s }
log: { level: info, format: json }
upstreams:
  loyalty:
    url: https://api.loyalty.example/v2
    headers: { Accept-Language: en }
    auth:
      oauth2:
        token_url: https://id.example/token?v=2
        client_id: c
        client_secret: s
        scopes: [points]
        client_auth: body
        params: {audience: a}
        lifetime: 50m
      headers: { X-App-Id: id, X-App-Token: 0123 }
      query: { api_key: k }
      hmac:
        header: X-Signature
        algorithm: sha512
        encoding: base64
        prefix: ''
        secret: s
        signed: '{timestamp}.{raw}'
        timestamp_header: X-Timestamp
    proxy: http://proxy:3128
    timeout: 10s
    concurrency: 64
    rate_limit: { limit: 100, period: 1s, burst: 1, key: '{.data.tenant}' }
    retry:
      { initial_delay: 1s, factor: 2, max_delay: 15m, jitter: 0.2, attempts: unlimited,
        within: 3d, retry_after_max: 1h }
    retry_after: '(.headers["x-rate-limit-reset"] | tonumber) - now'
    breaker: { failures: 5, open: 10s, open_max: 5m }
    egress: { allow: [10.0.0.0/8, 127.0.0.1] }
  basic:
    url: http://api.example
    auth:
      basic: { username: u, password: p }
      standard_webhooks: { secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw }
    rate_limit: [{ limit: 100 }, { limit: 5000, period: 1h, burst: 10 }]
    breaker: false
routes:
  award-points:
    description: Loyalty points for confirmed orders
    from:
      rabbitmq:
        queue: tidegate.award-points
        bind: [{ exchange: orders, key: 'order.confirmed.#' }]
        arguments: { x-max-length: 1000, x-overflow: nan, x-flag: true, x-text: '1' }
        declare: true
        prefetch: 1000
        max_message: 16MiB
        dedupe: off
        event:
          type: '{.routing_key}'
          id: '{.headers.id}'
          source: /x
          subject: '{.body.s}'
          time: '{.body.t}'
          extensions: { tenant: '{.body.tenant}' }
          data: .body
    when: .data.total > 0
    order_by: .data.customerId
    on_dead: hold
    to:
      http:
        upstream: loyalty
        method: PUT
        path: '/members/{.data.customerId}/points'
        query: { source: '{.source}' }
        headers: { X-Order: '{.data.orderId}' }
        body: '{points: (.data.total | floor), reference: .id}'
        encode: form
        success: [2xx, 409]
        retry_on: [default, 404]
        outcome: 'if .body.success == false then "retry" else null end'
        idempotency_header: false
        max_response: 64KiB
    retry: { attempts: 7, within: off }
  quiet:
    from: { rabbitmq: {} }
    to: { http: { upstream: basic, body: none } }
"#;

#[test]
fn the_examples_of_the_contract_are_accepted_and_understood() {
    let folder = Folder::new(&[("a.yaml", CONTRACT)]);
    let config = folder.load(&[("ONCALL", "correct horse")]).unwrap().config;
    assert_eq!(config.settings.admin.tokens["oncall"].token.expose(), "correct horse");
    assert_eq!(config.settings.admin.tokens["oncall"].role, Role::Operate);
    assert_eq!(config.settings.log.format, LogFormat::Json);

    let loyalty = &config.upstreams["loyalty"];
    let auth = &loyalty.api.auth;
    let oauth2 = auth.oauth2.as_ref().unwrap();
    assert_eq!((oauth2.client_auth, oauth2.lifetime), (ClientAuth::Body, 50 * MINUTE));
    assert_eq!(oauth2.scopes, ["points"]);
    assert_eq!(auth.headers["X-App-Token"].expose(), "0123");
    let hmac = auth.hmac.as_ref().unwrap();
    assert_eq!((hmac.algorithm, hmac.encoding), (HmacAlgorithm::Sha512, HmacEncoding::Base64));
    assert_eq!(hmac.signed, "{timestamp}.{raw}");
    assert_eq!(loyalty.rate_limit[0].limit.get(), 100);
    assert_eq!(loyalty.rate_limit[0].key.as_ref().unwrap().source(), "{.data.tenant}");
    assert_eq!(loyalty.api.egress.allow[1].to_string(), "127.0.0.1/32");

    let basic = &config.upstreams["basic"];
    assert!(basic.breaker.is_none());
    assert_eq!(basic.rate_limit.len(), 2);
    assert_eq!(basic.rate_limit[1].period, HOUR);

    let consumer = source(&config, "award-points");
    assert_eq!(consumer.dedupe, None);
    assert_eq!(consumer.event.kind.unwrap().source(), "{.routing_key}");
    let arguments = serde_json::to_value(&consumer.arguments).unwrap();
    let expected = serde_json::json!({
        "x-max-length": 1000, "x-overflow": "nan", "x-flag": true, "x-text": "1"
    });
    assert_eq!(arguments, expected);

    let route = &config.routes["award-points"];
    assert_eq!(route.on_dead, OnDead::Hold);
    assert_eq!(route.retry.attempts.unwrap().get(), 7);
    assert_eq!((route.retry.within, route.retry.initial_delay), (None, SECOND));
    let http = target(&config, "award-points");
    assert_eq!(http.method.as_str(), "PUT");
    assert_eq!((http.idempotency_header, http.encode), (None, Encode::Form));
    assert_eq!(http.success, [StatusPattern::Class(2), StatusPattern::Code(409)]);
    assert_eq!(http.retry_on[0], RetryOn::Default);
    assert!(matches!(target(&config, "quiet").body, BodyConfig::Empty));
}

#[test]
fn c5_text_stays_as_it_was_written() {
    for text in
        ["0123", "12:30", "1e3", "no", "yes", "on", "null", "~", "0x1F", "2024-01-01", "1_000"]
    {
        let config = accepted(&with("", &format!("    description: {text}\n")));
        assert_eq!(config.routes["r"].description.as_deref(), Some(text));
    }
}

#[test]
fn yaml_in_all_its_dresses_is_read_alike() {
    for yaml in [
        "queue: { max_size: 1GiB }",
        "queue: {max_size: 1GiB}\n",
        "queue:\n  max_size: 1GiB",
        "queue:\r\n  max_size: 1GiB\r\n",
        "\u{feff}queue:\n  max_size: 1GiB\n",
        "---\nqueue:\n    max_size:    1GiB   # comment\n...\n",
        "# comment\n\n'queue':\n  \"max_size\": '1GiB'\n",
        "queue: {\n  max_size: \"1GiB\",\n}\n",
        "{\"queue\": {\"max_size\": \"1GiB\"}}",
        "queue:\n  max_size: |-\n    1GiB\n",
        "queue:\n  max_size: >-\n    1GiB\n",
        "queue:\n  max_size: !!str 1GiB\n",
        "? queue\n: ? max_size\n  : 1GiB\n",
    ] {
        assert_eq!(accepted(yaml).settings.queue.max_size, 1 << 30, "{yaml}");
    }
}

#[test]
fn off_and_false_are_the_same() {
    for off in ["off", "false", "'off'", "\"false\""] {
        let config =
            accepted(&with(&format!("    breaker: {off}\n    retry: {{ within: {off} }}\n"), ""));
        assert!(config.upstreams["api"].breaker.is_none());
        assert_eq!(config.upstreams["api"].retry.within, None);
    }
}

#[test]
fn block_and_folded_scalars_and_anchors_are_read() {
    let config = accepted(
        "
upstreams:
  a: &base
    url: https://a.example
    timeout: 3s
  b: *base
routes:
  r:
    description: >-
      two
      words
    from: { rabbitmq: { bind: [{ exchange: e, key: k }] } }
    when: |
      .a
      | .b
    to: { http: { upstream: b } }
",
    );
    assert_eq!(config.upstreams["b"].timeout, 3 * SECOND);
    assert_eq!(config.routes["r"].description.as_deref(), Some("two words"));
    assert_eq!(config.routes["r"].when.as_ref().unwrap().source(), ".a\n| .b\n");
}

#[test]
fn odd_but_harmless_things_are_warned_of() {
    let folder = Folder::new(&[(
        "a.yaml",
        "upstreams:\n  api: { url: 'http://10.1.2.3/' }\n  spare: { url: 'https://x.example' }\n\
         routes:\n  r:\n    from: { rabbitmq: {} }\n    \
         to: { http: { upstream: api, method: GET } }\n",
    )]);
    let warnings: Vec<String> = folder
        .load(&[])
        .unwrap()
        .warnings
        .iter()
        .map(|warning| folder.strip(&warning.to_string()))
        .collect();
    assert_eq!(
        warnings,
        [
            "a.yaml:2:10  upstreams.api.url\n    10.1.2.3 is a private address, which is refused: \
                list it under `egress.allow` if it is meant",
            "a.yaml:3:3  upstreams.spare\n    no route calls this upstream",
            "a.yaml:6:13  routes.r.from.rabbitmq.bind\n    the queue is declared and bound to \
                nothing: only messages sent to it by name arrive",
            "a.yaml:7:34  routes.r.to.http.method\n    a GET would carry the event's data as its \
                body; write `body: none` if it should not",
        ]
    );
}

/// The contract's examples of the way in, and of what comes of a way out.
const WEBHOOKS: &str = r#"
server: { public_url: https://hooks.example.com }
upstreams:
  loyalty: { url: https://api.loyalty.example/v2 }
routes:
  award-points:
    description: Loyalty points for confirmed orders
    from:
      rabbitmq:
        bind: [{ exchange: orders, key: 'order.confirmed.#' }]
    to:
      http:
        upstream: loyalty
        path: '/members/{.data.customerId}/points'
    reply:
      on: [delivered, dead]
      when: .response.status == 202
      exchange: loyalty
      key: '{.type}'
      on_unroutable: drop
      event:
        type: 'loyalty.points-{.outcome}.v1'
        data: '{order: .event.data.orderId, job: .response.headers.location}'
  loyalty-webhooks:
    from:
      webhook:
        path: /hooks/loyalty
        verify:
          standard_webhooks: { secrets: [whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw], tolerance: 5m }
        rate_limit: { limit: 1000, period: 1s, burst: 100 }
        dedupe: 24h
        respond: { status: 202, headers: { X-Event: '{.body.id}' }, body: '{ok: true}' }
        split: .body.items[]
        event:
          id: '{.headers["webhook-id"]}'
          source: /loyalty
          type: 'loyalty.{.body.type}.v1'
          subject: '{.body.customer.id}'
          time: '{.body.created_at}'
          data: .body.data
    to:
      rabbitmq:
        exchange: loyalty
        key: '{.type}'
        headers: { X-Tenant: '{.tenant}' }
        envelope: cloudevents
        on_unroutable: retry
"#;

#[test]
fn both_directions_of_the_contract_are_accepted_and_understood() {
    let loaded = load_text(WEBHOOKS).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(loaded.warnings, []);
    let config = loaded.config;
    let names: Vec<&str> = config.routes.keys().map(|name| &**name).collect();
    assert_eq!(names, ["award-points", "award-points/reply", "loyalty-webhooks"]);

    let hooks = &config.routes["loyalty-webhooks"];
    let Source::Webhook(source) = &hooks.from else { panic!("a webhook") };
    assert_eq!(source.path, "/hooks/loyalty");
    let VerifyConfig::StandardWebhooks(verify) = &source.verify else { panic!("a signature") };
    assert_eq!(verify.secrets[0].expose(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    assert_eq!(verify.tolerance, 5 * MINUTE);
    let limit = source.rate_limit.as_ref().unwrap();
    assert_eq!((limit.limit.get(), limit.period, limit.burst.get()), (1000, SECOND, 100));
    assert_eq!(source.dedupe, Some(DAY));
    let respond = source.respond.as_ref().unwrap();
    assert_eq!(respond.status, 202);
    assert_eq!(respond.headers["X-Event"].source(), "{.body.id}");
    assert_eq!(respond.body.as_ref().unwrap().source(), "{ok: true}");
    assert_eq!(source.split.as_ref().unwrap().source(), ".body.items[]");
    assert_eq!(source.event.kind.as_ref().unwrap().source(), "loyalty.{.body.type}.v1");
    let to = publisher(&config, "loyalty-webhooks");
    assert_eq!((to.exchange.as_str(), to.key.source()), ("loyalty", "{.type}"));
    assert_eq!(to.headers["X-Tenant"].source(), "{.tenant}");

    let reply = config.routes["award-points"].reply.as_ref().unwrap();
    assert_eq!(reply.on, [ReplyOn::Delivered, ReplyOn::Dead]);
    assert_eq!(reply.when.as_ref().unwrap().source(), ".response.status == 202");
    assert_eq!(reply.event.kind.as_ref().unwrap().source(), "loyalty.points-{.outcome}.v1");
    assert_eq!(reply.to.on_unroutable, OnUnroutable::Drop);
}

#[test]
fn a_reply_is_delivered_by_a_route_of_its_own() {
    let config = accepted(&with("", "    reply: { exchange: x, event: { type: t } }\n"));
    let written = config.routes["r"].reply.as_ref().unwrap();
    assert_eq!(written.on, [ReplyOn::Delivered, ReplyOn::Dead]);
    assert!(written.when.is_none() && written.event.data.is_none());

    let route = &config.routes["r/reply"];
    assert!(matches!(&route.from, Source::Reply(of) if &**of == "r"));
    assert!(route.when.is_none() && route.order_by.is_none() && route.reply.is_none());
    assert_eq!((route.on_dead, route.retry.clone()), (OnDead::Continue, broker_retry()));
    assert_eq!((route.upstream(), route.dedupe()), (None, None));
    let to = publisher(&config, "r/reply");
    assert_eq!((to.exchange.as_str(), to.key.source()), ("x", "{.type}"));
    assert!(to.headers.is_empty());
    assert_eq!((to.envelope, to.on_unroutable), (Envelope::Cloudevents, OnUnroutable::Retry));
}

#[test]
fn webhooks_and_publishing_default_as_documented() {
    let config = accepted(&hook("path: /h, verify: { none: {} }", "exchange: e", ""));
    let route = &config.routes["h"];
    let Source::Webhook(source) = &route.from else { panic!("a webhook") };
    assert!(matches!(source.verify, VerifyConfig::None(_)));
    assert!(source.rate_limit.is_none() && source.respond.is_none() && source.split.is_none());
    assert!(source.event.is_empty());
    assert_eq!((source.dedupe, route.dedupe()), (Some(DAY), Some(DAY)));
    let to = publisher(&config, "h");
    assert_eq!((to.exchange.as_str(), to.key.source()), ("e", "{.type}"));
    assert!(to.headers.is_empty());
    assert_eq!((to.envelope, to.on_unroutable), (Envelope::Cloudevents, OnUnroutable::Retry));
    assert_eq!(route.retry, broker_retry());
    assert!(route.upstream().is_none() && route.reply.is_none());

    let own = accepted(&hook(
        "path: /h, rate_limit: { limit: 5 }, respond: {}, verify: { none: {} }",
        "exchange: e, envelope: cloudevents-binary, on_unroutable: dead",
        "    retry: { attempts: 9, max_delay: 1h }\n",
    ));
    let Source::Webhook(source) = &own.routes["h"].from else { panic!("a webhook") };
    let limit = source.rate_limit.as_ref().unwrap();
    assert_eq!((limit.period, limit.burst.get()), (SECOND, 1));
    let respond = source.respond.as_ref().unwrap();
    assert_eq!(respond.status, 202);
    assert!(respond.headers.is_empty() && respond.body.is_none());
    let retry =
        RetryConfig { attempts: std::num::NonZeroU32::new(9), max_delay: HOUR, ..broker_retry() };
    assert_eq!(own.routes["h"].retry, retry);
    let to = publisher(&own, "h");
    assert_eq!((to.envelope, to.on_unroutable), (Envelope::CloudeventsBinary, OnUnroutable::Dead));
}

/// A broker is waited for, for ever.
fn broker_retry() -> RetryConfig {
    RetryConfig {
        initial_delay: Duration::from_millis(500),
        factor: 2.0,
        max_delay: 5 * SECOND,
        jitter: 0.2,
        attempts: None,
        within: None,
        retry_after_max: Duration::ZERO,
    }
}
