//! Golden reports: place, key path, cause, remedy.

use super::*;

/// What `yaml` is refused with.
struct Case {
    yaml: &'static str,
    report: &'static str,
}

#[track_caller]
fn check(cases: &[Case]) {
    for Case { yaml, report } in cases {
        assert_eq!(refused(yaml), *report, "for:\n{yaml}");
    }
}

#[test]
fn c2_unknown_keys_get_the_nearest_name() {
    check(&[
        Case {
            yaml: "quue: {}\n",
            report: "a.yaml:1:1  quue\n    there is no such key; did you mean `queue`?",
        },
        Case {
            yaml: "queue:\n  sqlite: { pth: x }\n",
            report: "a.yaml:2:13  queue.sqlite.pth\n    there is no such key; did you mean `path`?",
        },
        Case {
            yaml: "queue.max_size: 1GiB\n",
            report: "a.yaml:1:1  queue.max_size\n    there is no such key; there are server, \
                admin, queue, broker, shutdown, log, telemetry, upstreams, routes, tests",
        },
        Case {
            yaml: "log: { colour: red }\n",
            report: "a.yaml:1:8  log.colour\n    there is no such key; there are level, format",
        },
        Case {
            yaml: "broker: { embedded: { size: 1 } }\n",
            report: "a.yaml:1:23  broker.embedded.size\n    there is no such key",
        },
    ]);
}

#[test]
fn yaml_that_is_none_says_where_and_what_to_do() {
    let quote = "; if a value on this line holds `{`, `: `, ` #` or begins with one of \
        `*&!%@[`, quote it: '…'";
    refuses(
        "queue:\n\tsqlite: x\n",
        &["a.yaml:2:2\n    this is not YAML: tabs disallowed within this context (block \
            indentation); indent with spaces"],
    );
    refuses(
        "a: {.x}/b\n",
        &[&format!(
            "a.yaml:1:8\n    this is not YAML: while parsing a block mapping, did not find \
                expected key{quote}"
        )],
    );
    refuses(
        "a: @x\n",
        &[&format!("a.yaml:1:4\n    this is not YAML: unexpected character: `@'{quote}")],
    );
    refuses(
        "a: 1\n---\nb: 2\n",
        &["a.yaml:2:1\n    a second document begins here: Tidegate reads one a file; write it \
            into a file of its own, in one folder"],
    );
    refuses(
        "- a\n",
        &["a.yaml:1:1\n    a configuration is a map of sections (`upstreams:`, `routes:` …)"],
    );
    refuses(
        "log: { level: !loud info }\n",
        &["a.yaml:1:21\n    YAML reads `!loud` as a tag, and tags mean nothing here; if it is \
            text, quote it"],
    );
    refuses(
        "log: { level: *x }\n",
        &["a.yaml:1:15\n    `*x` refers to an anchor `&x` that is not there; if it is text, \
            quote it: '*x'"],
    );
    refuses(
        "{.x}: 1\n",
        &["a.yaml:1:1\n    a key must be text; if `{` or `[` begins a text here, quote it"],
    );
}

#[test]
fn a_secret_is_not_null_and_a_name_is_not_interpolated() {
    refuses(
        &with("    auth: { bearer: null, query: { '${K}': v, k: ~ } }\n", ""),
        &[
            "a.yaml:4:21  upstreams.api.auth.bearer\n    a secret must not be empty",
            "a.yaml:4:36  upstreams.api.auth.query.${K}\n    `${…}` is put into values only, not \
                into keys",
            "a.yaml:4:50  upstreams.api.auth.query.k\n    a secret must not be empty",
        ],
    );
}

#[test]
fn jq_in_double_quotes_is_told_of_single_ones() {
    let report = refused(&with("", "    when: \"\\(.a)\"\n"));
    assert!(report.starts_with("a.yaml:8:"), "{report}");
    assert!(report.ends_with("; in single quotes ('…') a backslash stands for itself"), "{report}");
}

#[test]
fn places_count_characters_not_bytes_and_lines_of_any_ending() {
    refuses(
        "log: {level: info} # äöü🍕\r\nqueue: { sqlite: { path: 'ü🍕' }, max_size: 🍕 }\r\n",
        &["a.yaml:2:44  queue.max_size\n    `🍕` is not a size: write 64KiB, 1MiB or 2GiB"],
    );
}

#[test]
fn an_expression_that_does_not_compile_is_pointed_into() {
    for (route, report) in [
        ("    when: .a | | .b\n", "a.yaml:8:16  routes.r.when\n    not jq: term expected, not `|`"),
        (
            "    when: '.\"ä\" | nosuch'\n",
            "a.yaml:8:19  routes.r.when\n    `nosuch/0` is not known",
        ),
        (
            "    when: |\n      .a\n      | nosuch\n    on_dead: continue\n",
            "a.yaml:10:9  routes.r.when\n    `nosuch/0` is not known",
        ),
        // Where folding moved the text, the place is that of the whole value.
        (
            "    when: >-\n      .a\n      | nosuch\n",
            "a.yaml:9:7  routes.r.when\n    `nosuch/0` is not known",
        ),
        (
            "    when: \"\\x2ea | nosuch\"\n",
            "a.yaml:8:11  routes.r.when\n    `nosuch/0` is not known",
        ),
    ] {
        refuses(&with("", route), &[report]);
    }
}

#[test]
fn c3_a_key_written_twice_names_both_places() {
    refuses(
        "log: { level: info }\nqueue:\n  max_size: 1GiB\n  max_size: 2GiB\nlog: {}\n",
        &[
            "a.yaml:4:3  max_size\n    written twice in one map; the first one is at a.yaml:3:3",
            "a.yaml:5:1  log\n    written twice in one map; the first one is at a.yaml:1:1",
        ],
    );
}

#[test]
fn settings_are_checked_one_by_one_and_against_each_other() {
    refuses(
        "queue: { max_size: 1MiB, max_route_share: 0, keep: { dead: 0 } }\n\
         admin: { listen: 0.0.0.0:9090 }\n\
         log: { level: inf }\n\
         shutdown: { drain: soon }\n",
        &[
            "a.yaml:1:20  queue.max_size\n    `1MiB` is too small: 16MiB at least",
            "a.yaml:1:43  queue.max_route_share\n    `0` is not a number above 0 and up to 1",
            "a.yaml:1:60  queue.keep.dead\n    `0` is too short: it must be above 0",
            "a.yaml:2:10  admin.listen\n    listens on 0.0.0.0:9090, beyond this machine, so \
                `admin.tokens` must have one; or listen on 127.0.0.1",
            "a.yaml:3:15  log.level\n    `inf` is not `error`, `warn`, `info`, `debug` or `trace`; \
                did you mean `info`?",
            "a.yaml:4:20  shutdown.drain\n    `soon` is not a duration: write 500ms, 10s, 5m, 1h \
                or 3d",
        ],
    );
    refuses(
        "admin:\n  listen: :9090\n  tokens:\n    A: { token: '', role: admin }\n    \
         b: { token: same-token, role: read }\n    c: { token: same-token, role: read }\n",
        &[
            "a.yaml:2:11  admin.listen\n    `:9090` is not an address and port: write 0.0.0.0:9090",
            "a.yaml:4:5  admin.tokens.A\n    a name is 1 to 63 of `a-z 0-9 . _ -` and begins with \
                a letter or digit; capitals are not used",
            "a.yaml:4:17  admin.tokens.A.token\n    a secret must not be empty",
            "a.yaml:4:27  admin.tokens.A.role\n    `admin` is not `read` or `operate`",
            "a.yaml:6:10  admin.tokens.c.token\n    is the token of `b` too; the log could not \
                tell them apart",
        ],
    );
}

#[test]
fn a_broker_is_exactly_one_and_its_url_makes_sense() {
    check(&[
        Case {
            yaml: "broker: { rabbitmq: {}, embedded: {} }\n",
            report: "a.yaml:1:25  broker.embedded\n    takes one of `rabbitmq` or `embedded`, and \
                `rabbitmq` is there already",
        },
        Case {
            yaml: "broker: { rabbitmq: { url: 'http://x' } }\n",
            report: "a.yaml:1:28  broker.rabbitmq.url\n    must begin with amqp:// or amqps://, \
                not with http:",
        },
        Case {
            yaml: "broker: { rabbitmq: { url: 'amqp://x/a/b' } }\n",
            report: "a.yaml:1:28  broker.rabbitmq.url\n    names a virtual host with a bare `/`; \
                write it as %2f",
        },
        Case {
            yaml: "broker: { rabbitmq: { url: 'amqp://x/?heartbeat=5' } }\n",
            report: "a.yaml:1:28  broker.rabbitmq.url\n    must not have a query (`?…`); \
                `heartbeat` and `tls` are keys beside it",
        },
        Case {
            yaml: "broker: { rabbitmq: { heartbeat: 10ms } }\n",
            report: "a.yaml:1:34  broker.rabbitmq.heartbeat\n    `10ms` is too short: it must be \
                at least 1000ms",
        },
    ]);
}

#[test]
fn a_collector_is_a_url_without_credentials_and_a_share_is_between_none_and_all() {
    check(&[
        Case { yaml: "telemetry: {}\n", report: "a.yaml:1:1  telemetry\n    needs `otlp`" },
        Case {
            yaml: "telemetry: { otlp: 'grpc://c:4317' }\n",
            report: "a.yaml:1:20  telemetry.otlp\n    must begin with http:// or https://, not \
                with grpc:",
        },
        Case {
            yaml: "telemetry: { otlp: 'http://me:secretly@c' }\n",
            report: "a.yaml:1:20  telemetry.otlp\n    must not hold a user and password \
                (`user:password@`)",
        },
        Case {
            yaml: "telemetry: { otlp: 'http://c', sample: 1.5 }\n",
            report: "a.yaml:1:40  telemetry.sample\n    `1.5` is not a number from 0 to 1",
        },
    ]);
}

#[test]
fn what_is_not_built_says_so_with_place_and_remedy() {
    refuses(
        "queue: { postgres: { url: x } }\n\
         routes:\n  in:\n    from: { command: { path: /x } }\n    to: { view: {} }\n  \
         out:\n    from: { outbox: {} }\n    to: { rabbitmq: { exchange: e } }\n",
        &[
            "a.yaml:1:10  queue.postgres\n    not yet: `postgres` is not in this version; use \
                queue.sqlite",
            "a.yaml:4:13  routes.in.from.command\n    not yet: `command` is not in this version; \
                take in from `rabbitmq` or `webhook`",
            "a.yaml:5:11  routes.in.to.view\n    not yet: `view` is not in this version; let out \
                to `http` or `rabbitmq`",
            "a.yaml:7:13  routes.out.from.outbox\n    not yet: `outbox` is not in this version; \
                take in from `rabbitmq` or `webhook`",
        ],
    );
}

#[test]
fn upstreams_are_checked_key_by_key() {
    refuses(
        &with(
            "    timeout: 10 s\n    concurrency: 0\n    breaker: on\n    \
             rate_limit: [{ period: 0 }, 5]\n    egress: { allow: [10.0.0.1/8, here] }\n    \
             proxy: socks5://p\n    retry: { jitter: 2, factor: 0.5, attempts: 0, within: x }\n",
            "",
        ),
        &[
            "a.yaml:4:14  upstreams.api.timeout\n    `10 s` is not a duration: write 500ms, 10s, \
                5m, 1h or 3d",
            "a.yaml:5:18  upstreams.api.concurrency\n    `0` is not a whole number from 1 to \
                100000",
            "a.yaml:6:14  upstreams.api.breaker\n    must be a map, or `off`",
            "a.yaml:7:18  upstreams.api.rate_limit[0]\n    needs `limit`",
            "a.yaml:7:28  upstreams.api.rate_limit[0].period\n    `0` is too short: it must be \
                above 0",
            "a.yaml:7:33  upstreams.api.rate_limit[1]\n    must be a map (`key: value`), not text",
            "a.yaml:8:23  upstreams.api.egress.allow[0]\n    `10.0.0.1/8` is not a network: it has \
                bits beyond its prefix; write 10.0.0.0/8",
            "a.yaml:8:35  upstreams.api.egress.allow[1]\n    `here` is not a network: write \
                10.0.0.0/8, 192.168.1.7 or fd00::/8",
            "a.yaml:9:12  upstreams.api.proxy\n    must begin with http:// or https://, not with \
                socks5:",
            "a.yaml:10:22  upstreams.api.retry.jitter\n    `2` is not a number from 0 to 1",
            "a.yaml:10:33  upstreams.api.retry.factor\n    `0.5` is not a number from 1 to 1000",
            "a.yaml:10:48  upstreams.api.retry.attempts\n    `0` is not a whole number from 1 to \
                4294967295, or `unlimited`",
            "a.yaml:10:59  upstreams.api.retry.within\n    `x` is not a duration: write 500ms, \
                10s, 5m, 1h or 3d, or `off`",
        ],
    );
}

#[test]
fn a_wait_that_no_attempt_is_ever_put_off_for_is_refused() {
    for key in ["max_delay", "retry_after_max"] {
        let written = with(&format!("    retry: {{ {key}: 31d }}\n"), "");
        let report = refused(&written);
        assert!(
            report.contains(key) && report.ends_with("`31d` is too long: 30d at most"),
            "{report}"
        );
    }
}

#[test]
fn delays_that_contradict_each_other_are_refused_where_they_meet() {
    refuses(
        &with(
            "    retry: { initial_delay: 1h }\n    breaker: { open: 10m }\n",
            "    retry: { max_delay: 2h }\n",
        ),
        &[
            "a.yaml:4:5  upstreams.api.retry\n    `initial_delay` (1h) is longer than `max_delay` \
                (15m)",
            "a.yaml:5:5  upstreams.api.breaker\n    `open` (10m) is longer than `open_max` (5m)",
        ],
    );
}

#[test]
fn credentials_exclude_each_other_and_own_their_headers() {
    refuses(
        &with(
            "    headers: { authorization: x, X-Sig: y }\n    auth:\n      bearer: abc\n      \
             basic: { username: a }\n      headers: { X-Sig: z }\n      \
             standard_webhooks: { secret: whsec_AAAA }\n      \
             hmac: { header: X-Sig, secret: s, signed: '{timestamp}.{row}' }\n",
            "    description: d\n",
        ),
        &[
            "a.yaml:4:16  upstreams.api.headers.authorization\n    this header is set by \
                `auth.bearer` already",
            "a.yaml:4:34  upstreams.api.headers.X-Sig\n    this header is set by \
                `auth.headers.X-Sig` already",
            "a.yaml:7:7  upstreams.api.auth.basic\n    needs `password`",
            "a.yaml:7:7  upstreams.api.auth.basic\n    `bearer` is there already, and they exclude \
                each other",
            "a.yaml:9:36  upstreams.api.auth.standard_webhooks.secret\n    a Standard Webhooks \
                secret has 24 to 64 bytes, this one has 3",
            "a.yaml:10:7  upstreams.api.auth.hmac\n    `standard_webhooks` is there already, and \
                they exclude each other",
            "a.yaml:10:15  upstreams.api.auth.hmac.header\n    sets the header `x-sig`, as \
                `auth.headers.X-Sig` does",
            "a.yaml:10:49  upstreams.api.auth.hmac.signed\n    `{row}` is none of {raw}, \
                {timestamp}, {id}, {url}; did you mean `raw`?",
        ],
    );
    refuses(
        &with("    auth: { basic: { username: 'a:b', password: \"x\" } }\n", ""),
        &["a.yaml:4:22  upstreams.api.auth.basic.username\n    a user name cannot hold `:`, \
            which ends it (RFC 7617)"],
    );
    refuses(
        &with("    auth: { bearer: x }\n", "").replace("https://", "https://u:p@"),
        &["a.yaml:4:13  upstreams.api.auth.bearer\n    the url has a user already, and they \
            exclude each other"],
    );
    refuses(
        &with("    auth: { bearer: \"a\\nb\" }\n", ""),
        &["a.yaml:4:21  upstreams.api.auth.bearer\n    holds a line break or another control \
            character, which no header can carry"],
    );
    refuses(
        &with("    auth: { hmac: { header: S, secret: s, signed: '{timestamp}' } }\n", ""),
        &["a.yaml:4:43  upstreams.api.auth.hmac.signed\n    signs `{timestamp}`, which the \
            receiver must see: set `timestamp_header`"],
    );
}

#[test]
fn routes_name_upstreams_that_exist_and_queues_of_their_own() {
    refuses(
        "upstreams:\n  loyalty: { url: 'https://x.example' }\nroutes:\n  a:\n    \
         from: { rabbitmq: { queue: q, bind: [{ exchange: e, key: k }] } }\n    \
         to: { http: { upstream: loyal } }\n  b:\n    \
         from: { rabbitmq: { queue: q, bind: [{ exchange: e, key: k }] } }\n    \
         to: { http: { upstream: loyalty } }\n  c:\n    from: {}\n",
        &[
            "a.yaml:6:19  routes.a.to.http.upstream\n    there is no upstream `loyal`; did you \
                mean `loyalty`?",
            "a.yaml:8:25  routes.b.from.rabbitmq.queue\n    the route `a` consumes `q` too: each \
                would get a part of its messages; give each a queue of its own",
            "a.yaml:10:3  routes.c\n    needs `to`",
            "a.yaml:11:5  routes.c.from\n    needs `rabbitmq` or `webhook`",
        ],
    );
}

#[test]
fn a_source_is_checked_down_to_its_bindings() {
    refuses(
        "upstreams:\n  api: { url: 'https://x.example' }\nroutes:\n  r:\n    from:\n      \
         rabbitmq:\n        queue: amq.x\n        declare: false\n        prefetch: 70000\n        \
         bind:\n          - exchange: e\n            key: #\n        \
         arguments: { x-queue-type: classic }\n        dedupe: never\n        \
         event: { extensions: { Trace: a, id: b } }\n    to: { http: { upstream: api } }\n    \
         on_dead: hold\n",
        &[
            "a.yaml:7:9  routes.r.from.rabbitmq.queue\n    names that begin with `amq.` are \
                RabbitMQ's own",
            "a.yaml:9:19  routes.r.from.rabbitmq.prefetch\n    `70000` is not a whole number from \
                1 to 65535",
            "a.yaml:10:9  routes.r.from.rabbitmq.bind\n    has no effect with `declare: false`, \
                which takes the queue as it is; leave out one of them",
            "a.yaml:12:16  routes.r.from.rabbitmq.bind[0].key\n    has no value; write one, or \
                leave the key out\n    YAML ends this value before ` #`, which begins a comment; \
                if that is part of it, quote it: '…'",
            "a.yaml:13:9  routes.r.from.rabbitmq.arguments\n    has no effect with `declare: \
                false`, which takes the queue as it is; leave out one of them",
            "a.yaml:13:22  routes.r.from.rabbitmq.arguments.x-queue-type\n    Tidegate sets this \
                argument itself; leave it out",
            "a.yaml:14:17  routes.r.from.rabbitmq.dedupe\n    `never` is not a duration: write \
                500ms, 10s, 5m, 1h or 3d, or `off`",
            "a.yaml:15:32  routes.r.from.rabbitmq.event.extensions.Trace\n    an extension \
                attribute is 1 to 20 of `a-z 0-9`",
            "a.yaml:15:42  routes.r.from.rabbitmq.event.extensions.id\n    CloudEvents defines \
                this attribute itself: it is no extension",
            "a.yaml:17:5  routes.r.on_dead\n    `hold` holds the deliveries of one order key, so \
                it needs `order_by`",
        ],
    );
}

#[test]
fn on_the_embedded_broker_a_route_needs_a_binding() {
    refuses(
        "broker: { embedded: {} }\nupstreams:\n  api: { url: 'https://x.example' }\nroutes:\n  \
         r:\n    from: { rabbitmq: {} }\n    to: { http: { upstream: api } }\n",
        &["a.yaml:6:13  routes.r.from.rabbitmq.bind\n    the embedded broker has no queues of \
            its own: a route without `bind` would get nothing"],
    );
}

#[test]
fn a_target_is_checked_down_to_its_headers() {
    refuses(
        "upstreams:\n  api: { url: 'https://u:p@x.example/?a#b' }\nroutes:\n  r:\n    \
         from: { rabbitmq: { bind: [{ exchange: e, key: k }] } }\n    to:\n      http:\n        \
         upstream: api\n        method: post\n        path: '/x/{.a?}?y={.a}'\n        \
         headers: { Host: a, A: b, a: c, Idempotency-Key: x, 'a b': d }\n        \
         success: []\n        retry_on: [4x, default, 503]\n        max_response: 1GiB\n",
        &[
            "a.yaml:2:15  upstreams.api.url\n    must not have a fragment (`#…`)",
            "a.yaml:9:17  routes.r.to.http.method\n    methods are written in capitals: POST",
            "a.yaml:10:24  routes.r.to.http.path\n    a path has no query; write it under `query:` \
                beside it",
            "a.yaml:11:20  routes.r.to.http.headers.Host\n    `Host` is set by HTTP itself; leave \
                it out",
            "a.yaml:11:35  routes.r.to.http.headers.a\n    this header is set at a.yaml:11:29 \
                already",
            "a.yaml:11:41  routes.r.to.http.headers.Idempotency-Key\n    this header is set by \
                `idempotency_header` already",
            "a.yaml:11:61  routes.r.to.http.headers.a b\n    `a b` is not a header name",
            "a.yaml:12:9  routes.r.to.http.success\n    without a status here and without \
                `outcome` nothing could ever be delivered",
            "a.yaml:13:20  routes.r.to.http.retry_on[0]\n    `4x` is none of: a status (404, 5xx), \
                connect, ambiguous, default",
            "a.yaml:14:23  routes.r.to.http.max_response\n    `1GiB` is too large: 16MiB at most",
        ],
    );
}

#[test]
fn text_that_yaml_reads_otherwise_says_quote_it() {
    refuses(
        &with("", "    when: {.x}\n    order_by: [.x]\n"),
        &[
            "a.yaml:8:11  routes.r.when\n    YAML reads this as a map, for it begins with `{` or \
                holds `: `; quote it: '…'",
            "a.yaml:9:15  routes.r.order_by\n    YAML reads this as a list, for it begins with `[` \
                or holds `: `; quote it: '…'",
        ],
    );
    let cut = refused(&with("", "    when: .x == \"a # b\"\n"));
    assert!(cut.starts_with("a.yaml:8:"), "{cut}");
    assert!(
        cut.ends_with(
            "\n    YAML ends this value before ` #`, which begins a comment; if that is part of \
                it, quote it: '…'"
        ),
        "{cut}"
    );
    let template = refused(&with("    headers: { A: {.x} }\n", ""));
    assert!(template.ends_with("holds `: `; quote it: '{.data.id}'"), "{template}");
}

#[test]
fn what_could_run_away_is_refused_by_name() {
    for (expression, message) in [
        ("'def f: f; f'", "`f` calls itself"),
        ("repeat(1)", "`repeat` is refused"),
        ("range(1;10)", "`range` is refused"),
        ("'\"a\" * 5'", "string × number is refused"),
        ("env.HOME", "`env` is refused"),
        ("'$ENV'", "`$ENV` does not exist"),
    ] {
        let report = refused(&with("", &format!("    when: {expression}\n")));
        assert!(report.starts_with("a.yaml:8:"), "{report}");
        assert!(report.contains("  routes.r.when\n"), "{report}");
        assert!(report.contains(message), "{report}");
    }
}

#[test]
fn templates_are_checked_for_their_place() {
    for (upstream, report) in [
        (
            "    headers: { A: \"x\\ny\" }\n",
            "a.yaml:4:19  upstreams.api.headers.A\n    has control characters",
        ),
        (
            "    headers: { A: 'x{.y' }\n",
            "a.yaml:4:21  upstreams.api.headers.A\n    `{` is never closed; a literal brace \
                is `{{`",
        ),
        (
            "    retry_after: .x | tonumer\n",
            "a.yaml:4:23  upstreams.api.retry_after\n    `tonumer/0` is not known; did you mean \
                `tonumber`?",
        ),
    ] {
        refuses(&with(upstream, ""), &[report]);
    }
    let path = with("", "").replace("upstream: api", "upstream: api, path: '/a/../b'");
    refuses(
        &path,
        &["a.yaml:7:40  routes.r.to.http.path\n    path `/a/../b` has the segment `..`"],
    );
}

#[test]
fn files_of_tls_are_read_and_must_hold_what_they_should() {
    let folder = Folder::new(&[("not.pem", "hello\n")]);
    let not = folder.path().join("not.pem").display().to_string();
    let yaml =
        with(&format!("    tls: {{ ca: /nowhere/ca.pem, cert: {not} }}\n"), "    description: d\n");
    refuses(
        &yaml,
        &[
            "a.yaml:4:5  upstreams.api.tls\n    has `cert` and needs its `key`",
            "a.yaml:4:16  upstreams.api.tls.ca\n    the file /nowhere/ca.pem cannot be read: No \
                such file or directory (os error 2)",
            &format!(
                "a.yaml:4:39  upstreams.api.tls.cert\n    the file {not} holds no PEM certificate \
                    (-----BEGIN CERTIFICATE-----)"
            ),
        ],
    );
}

#[test]
fn the_report_is_json_too() {
    let report = load_text("quue: {}\n").unwrap_err();
    let json = report.to_json();
    assert_eq!(json["valid"], false);
    assert_eq!(json["problems"][0]["key"], "quue");
    assert_eq!(json["problems"][0]["line"], 1);
    assert_eq!(json["problems"][0]["column"], 1);
    assert_eq!(json["problems"][0]["message"], "there is no such key; did you mean `queue`?");
    assert_eq!(json["warnings"][0]["message"], "there are no routes: nothing will be delivered");
}
