use super::*;
#[test]
fn explore() {
    let cases: &[&str] = &[
"quue: {}\n",
"queue:\n  sqlite: { pth: x }\n  max_size: 1MiB\n  max_route_share: 0\n",
"log: { level: inf }\nlog: {}\n",
"admin:\n  listen: 0.0.0.0:9090\n",
"admin:\n  listen: localhost:9090\n  tokens: { A: {token: '', role: admin} }\n",
"broker: { rabbitmq: {}, embedded: {} }\n",
"broker: { rabbitmq: { url: 'http://u:hunter2hunter2@x' , heartbeat: 10ms} }\n",
"queue: { postgres: { url: x } }\ntelemetry: { otlp: x }\ntests: []\n",
"upstreams:\n  loyalty: { }\n",
"a: {.x}/b\n",
"\tx: 1\n",
"queue:\n\tsqlite: x\n",
"a: [1, 2\n",
"- a\n",
"hello\n",
"a: 1\n---\nb: 2\n",
"a: *x\n",
"a: * \n",
"a: !foo bar\n",
"a: %x\n",
"a: @x\n",
"? [a]\n: b\n",
"{.x}: 1\n",
&with("    timeout: 10 s\n    concurrency: 0\n    auth: { bearer: x, basic: {username: a} }\n", ""),
&with("    retry: { initial_delay: 1h, jitter: 2, factor: 0.5, attempts: 0, within: x }\n    breaker: on\n", "    retry: { max_delay: 1ms }\n"),
&with("", "    when: {.x}\n    order_by: [.x]\n    on_dead: holds\n    reply: {}\n"),
&with("", "    when: .x == \"a # b\n"),
&with("", "    when: .x !! 1\n    order_by: '.x !! 1'\n"),
&with("", "    when: |\n      .x |\n       !! y\n"),
&with("", "    when: ${X} == 1\n"),
"routes:\n  r:\n    from: { webhook: { path: /x } }\n    to: { rabbitmq: {} }\n",
"routes:\n  r:\n    from:\n      rabbitmq: { bind: [{ exchange: e, key: # }] }\n    to: { http: {} }\n",
"routes:\n  r:\n    from:\n      rabbitmq:\n        bind:\n          - exchange: e\n            key: #\n    to: { http: {upstream: x, method: post, path: a, success: [], retry_on: [4x]} }\n",
"upstreams:\n  loyalty: { url: https://u:p@x/?a#b }\nroutes:\n  r:\n    from:\n      rabbitmq: { bind: [{ exchange: e, key: k }], arguments: {x-queue-type: classic}, queue: amq.x }\n    to: { http: {upstream: loyal, headers: {Host: a, A: b, a: c, Idempotency-Key: x}, path: '/x?y={.a}'} }\n",
"queue: 5\nserver: []\n",
"queue:\n  <<: *a\n",
"log: { level: ${LEVEL} }\nadmin: { listen: '${X:?tell me where}' }\nbroker: { rabbitmq: { url: '${file:/nope}' } }\nserver: { listen: '${', max_body: '${a b}' , max_connections: '${A:-${B}}'}\n",
    ];
    for case in cases {
        println!("=====\n{case}-----\n{}", refused(case));
    }
}
