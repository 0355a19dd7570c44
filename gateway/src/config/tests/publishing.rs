//! Publishing to the broker, and replies: what is said of those that could not work.

use super::*;

const NONE: &str = "path: /h, verify: { none: {} }";

fn replies(reply: &str) -> String {
    with("", &format!("    reply: {{ {reply} }}\n"))
}

#[test]
fn an_exchange_has_a_name_that_can_be_published_to() {
    refuses(&hook(NONE, "", ""), &["a.yaml:4:11  routes.h.to.rabbitmq\n    needs `exchange`"]);
    refuses(
        &hook(NONE, "exchange: ''", ""),
        &["a.yaml:4:33  routes.h.to.rabbitmq.exchange\n    RabbitMQ's default exchange, which \
            has no name, is not published to: name an exchange, and bind the RabbitMQ queue to it"],
    );
    refuses(
        &hook(NONE, "exchange: ", ""),
        &["a.yaml:4:31  routes.h.to.rabbitmq.exchange\n    has no value; write one, or leave the \
            key out"],
    );
    refuses(
        &hook(NONE, "exchange: amq.mine", ""),
        &["a.yaml:4:33  routes.h.to.rabbitmq.exchange\n    names that begin with `amq.` are \
            RabbitMQ's own, and it has none of this name; choose another, or `amq.topic`"],
    );
    refuses(
        &hook(NONE, &format!("exchange: {}", "x".repeat(256)), ""),
        &["a.yaml:4:33  routes.h.to.rabbitmq.exchange\n    longer than 255 bytes, which is \
            AMQP's limit"],
    );
    accepted(&hook(NONE, "exchange: amq.topic", ""));
    accepted(&hook(NONE, &format!("exchange: {}", "x".repeat(255)), ""));
}

#[test]
fn what_is_published_is_checked_key_by_key() {
    refuses(
        &hook(
            NONE,
            "exchange: e, key: '{.type', envelope: cloudevent, on_unroutable: wait",
            "    retry: { initial_delay: 1m, attempts: none }\n",
        ),
        &[
            "a.yaml:4:42  routes.h.to.rabbitmq.key\n    `{` is never closed; a literal brace is \
                `{{`",
            "a.yaml:4:61  routes.h.to.rabbitmq.envelope\n    `cloudevent` is not `cloudevents`, \
                `cloudevents-binary` or `metadata-data`; did you mean `cloudevents`?",
            "a.yaml:4:88  routes.h.to.rabbitmq.on_unroutable\n    `wait` is not `retry`, `dead` \
                or `drop`",
            "a.yaml:5:5  routes.h.retry\n    `initial_delay` (1m) is longer than `max_delay` (5s)",
            "a.yaml:5:43  routes.h.retry.attempts\n    `none` is not a whole number from 1 to \
                4294967295, or `unlimited`",
        ],
    );
    refuses(
        &hook(NONE, &format!("exchange: e, key: {}", "k".repeat(256)), ""),
        &["a.yaml:4:41  routes.h.to.rabbitmq.key\n    a routing key has at most 255 bytes"],
    );
}

#[test]
fn headers_that_the_envelope_writes_are_not_set_by_hand() {
    refuses(
        &hook(
            NONE,
            "exchange: e, headers: { 'cloudEvents:id': a, CE-Type: b, traceparent: c, CC: d, \
             '': e }",
            "",
        ),
        &[
            "a.yaml:4:47  routes.h.to.rabbitmq.headers.cloudEvents:id\n    headers of this name \
                carry a CloudEvent's attributes, which the envelope writes; leave it out",
            "a.yaml:4:68  routes.h.to.rabbitmq.headers.CE-Type\n    headers of this name carry a \
                CloudEvent's attributes, which the envelope writes; leave it out",
            "a.yaml:4:80  routes.h.to.rabbitmq.headers.traceparent\n    Tidegate sets this header \
                itself; leave it out",
            "a.yaml:4:96  routes.h.to.rabbitmq.headers.CC\n    RabbitMQ wants a list of routing \
                keys in this header, and headers are text here; bind what should get the event too",
            "a.yaml:4:103  routes.h.to.rabbitmq.headers.\n    a name is missing",
        ],
    );
    // AMQP's names are not HTTP's.
    accepted(&hook(NONE, "exchange: e, headers: { 'any name at all': '{.source}', Host: h }", ""));
}

#[test]
fn a_broker_names_no_time_to_wait() {
    refuses(
        &hook(NONE, "exchange: e", "    retry: { retry_after_max: 1h }\n"),
        &["a.yaml:5:14  routes.h.retry.retry_after_max\n    has no effect where a route \
            publishes, for a broker names no time to wait; leave it out"],
    );
}

#[test]
fn the_embedded_broker_has_no_use_for_envelopes() {
    let embedded = |yaml: String| format!("{yaml}broker: {{ embedded: {{}} }}\n");
    let why = "has no effect on the embedded broker, where an event stays in process and needs no \
        envelope; leave it out";
    refuses(
        &embedded(hook(NONE, "exchange: e, headers: { a: b }, envelope: cloudevents", "")),
        &[
            &format!("a.yaml:4:36  routes.h.to.rabbitmq.headers\n    {why}"),
            &format!("a.yaml:4:55  routes.h.to.rabbitmq.envelope\n    {why}"),
        ],
    );
    refuses(
        &embedded(replies("exchange: x, envelope: metadata-data, event: { type: t }")),
        &[&format!("a.yaml:8:27  routes.r.reply.envelope\n    {why}")],
    );
    accepted(&embedded(hook(NONE, "exchange: e, on_unroutable: drop, key: k", "")));
    accepted(&embedded(replies("exchange: x, event: { type: t }")));
}

#[test]
fn a_reply_says_what_it_is_and_has_an_id_of_ours() {
    refuses(
        &replies(""),
        &[
            "a.yaml:8:5  routes.r.reply\n    needs `exchange`",
            "a.yaml:8:5  routes.r.reply\n    needs `event`",
        ],
    );
    refuses(
        &replies("on: [], exchange: x, event: { id: '{.event.id}', source: /s }"),
        &[
            "a.yaml:8:14  routes.r.reply.on\n    is empty: no reply would ever be sent; leave out \
                `reply` as a whole",
            "a.yaml:8:35  routes.r.reply.event\n    needs `type`",
            "a.yaml:8:44  routes.r.reply.event.id\n    the id of a reply is ours: UUIDv5 of \
                delivery, outcome and attempt; leave it out",
        ],
    );
    refuses(
        &replies("on: [filtered], when: .a |, exchange: '', key: '}', event: { type: t, foo: 1 }"),
        &[
            "a.yaml:8:19  routes.r.reply.on[0]\n    `filtered` is not `delivered` or `dead`",
            "a.yaml:8:40  routes.r.reply.when\n    not jq: it ends where term is expected",
            "a.yaml:8:52  routes.r.reply.exchange\n    RabbitMQ's default exchange, which has no \
                name, is not published to: name an exchange, and bind the RabbitMQ queue to it",
            "a.yaml:8:62  routes.r.reply.key\n    `}` closes nothing; a literal brace is `}}`",
            "a.yaml:8:84  routes.r.reply.event.foo\n    there is no such key; there are source, \
                type, subject, time, extensions, data",
        ],
    );
}

#[test]
fn only_what_calls_an_api_has_a_reply() {
    refuses(
        &hook(NONE, "exchange: e", "    reply: { exchange: x, event: { type: t } }\n"),
        &["a.yaml:5:5  routes.h.reply\n    tells of an API's answer, which only a route with \
            `to.http` gets; leave it out"],
    );
}

#[test]
fn the_route_of_a_reply_cannot_be_written() {
    let report = refused("routes:\n  r/reply: {}\n");
    assert!(report.starts_with("a.yaml:2:3  routes.r/reply\n"), "{report}");
    assert!(report.contains("a name is 1 to 63 of `a-z 0-9 . _ -`"), "{report}");
}

#[test]
fn a_route_that_takes_in_what_it_publishes_is_warned_of() {
    const RING: &str = "a ring: this route is bound to this exchange, so what it publishes comes \
        back to it; publish to another exchange, or bind it to narrower keys";
    // Bound to `e` with `k`.
    for (reply, ring) in [
        ("exchange: e, key: k, event: { type: t }", true),
        ("exchange: e, event: { type: k }", true),
        ("exchange: e, event: { type: t }", false),
        ("exchange: e, key: '{.subject}', event: { type: k }", false),
        ("exchange: x, key: k, event: { type: k }", false),
    ] {
        let expected: &[String] =
            &[format!("a.yaml:8:14  routes.r.reply.exchange\n    {RING}")][usize::from(!ring)..];
        assert_eq!(warned(&replies(reply)), expected, "{reply}");
    }
    let around = |pattern: &str, key: &str| {
        format!(
            "routes:\n  r:\n    \
             from: {{ rabbitmq: {{ bind: [{{ exchange: e, key: '{pattern}' }}] }} }}\n    \
             to: {{ rabbitmq: {{ exchange: e, key: '{key}' }} }}\n"
        )
    };
    for (pattern, key, ring) in [
        ("#", "{.type}", true),
        ("a.*", "a.b", true),
        ("a.#", "{{a}}", false),
        ("a.#", "{.type}", false),
        ("a.*", "b.a", false),
    ] {
        let expected: &[String] =
            &[format!("a.yaml:4:23  routes.r.to.rabbitmq.exchange\n    {RING}")]
                [usize::from(!ring)..];
        assert_eq!(warned(&around(pattern, key)), expected, "{pattern} {key}");
    }
}
