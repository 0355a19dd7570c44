//! The section `tests`: what is accepted, and what is told of it.

use super::*;

const ROUTES: &str = "\
upstreams: { api: { url: 'https://api.example' } }
routes:
  out:
    from: { rabbitmq: { bind: [{ exchange: e, key: k }] } }
    to: { http: { upstream: api } }
  in:
    from: { webhook: { path: /in, verify: { none: {} } } }
    to: { rabbitmq: { exchange: e } }
tests:
";

/// The problem with one test, without its place.
#[track_caller]
fn refuses_test(test: &str, problem: &str) {
    let yaml = format!("{ROUTES}  a test: {{ {test} }}\n");
    let report = refused(&yaml);
    let (place, told) = report.split_once("  ").unwrap();
    assert!(place.starts_with("a.yaml:10:"), "{report}");
    assert_eq!(told, problem, "for: {test}");
}

#[test]
fn a_test_is_read_with_its_defaults_and_its_place() {
    let yaml = format!(
        "{ROUTES}  a test of. any name:\n    route: out\n    given: {{ event: {{ type: t }} }}\n"
    );
    let config = accepted(&yaml);
    let test = &config.tests["a test of. any name"];
    assert_eq!((&*test.route, &*test.now), ("out", "2026-01-01T00:00:00Z"));
    assert_eq!(test.expect.outcome, ["delivered"]);
    assert!(test.answers.is_none() && test.expect.requests.is_none());
    assert!(matches!(&test.place, Some(Place::File { line: 10, column: 3, .. })));
}

#[test]
fn tests_may_lie_in_files_of_their_own_and_no_name_is_there_twice() {
    let test = "tests:\n  one: { route: out, given: { event: { type: t } } }\n";
    let split = Folder::new(&[("a.yaml", ROUTES), ("b.yaml", test)]);
    assert_eq!(split.load(&[]).unwrap().config.tests.len(), 1);
    let twice = Folder::new(&[("a.yaml", ROUTES), ("b.yaml", test), ("c.yaml", test)]);
    let report = twice.strip(&twice.load(&[]).unwrap_err().to_string());
    let told = "tests.one\n    is set in two files; the other one is at b.yaml:2:3";
    assert!(report.ends_with(told), "{report}");
}

#[test]
fn names_that_nothing_has_are_told_with_the_nearest_one() {
    refuses_test(
        "route: ouf, given: { event: {} }",
        "tests.a test.route\n    there is no route `ouf`; did you mean `out`?",
    );
    refuses_test(
        "route: out, given: { evnt: {} }",
        "tests.a test.given.evnt\n    there is no such key; did you mean `event`?",
    );
    refuses_test(
        "route: out, given: { event: {} }, expect: { request: [] }",
        "tests.a test.expect.request\n    there is no such key; did you mean `requests`?",
    );
    refuses_test(
        "route: out, given: { event: {} }, answers: [{ fault: time-out }]",
        "tests.a test.answers[0].fault\n    `time-out` is not `dns`, `connect`, `tls`, `timeout`, \
         `reset`, `protocol`, `refused_address`, `unroutable`, `nack` or `ambiguous`; did you mean \
         `timeout`?",
    );
}

#[test]
fn what_does_not_go_together_is_refused() {
    let cases = [
        (
            "route: out, given: { webhook: {} }",
            "given.webhook\n    the route takes in RabbitMQ's \
            messages: give it `message` or `event`",
        ),
        (
            "route: in, given: { message: {} }",
            "given.message\n    the route takes in webhooks: \
            give it `webhook` or `event`",
        ),
        (
            "route: out, given: { event: {} }, expect: { answer: {} }",
            "expect.answer\n    is what \
            a webhook's sender hears, and the route takes in messages",
        ),
        (
            "route: in, given: { event: {} }, expect: { requests: [] }",
            "expect.requests\n    the \
            route publishes: expect `published`",
        ),
        (
            "route: in, given: { event: {} }, answers: [{ fault: timeout }]",
            "answers[0].fault\n    \
            the route publishes, where there is no `timeout`",
        ),
        (
            "route: in, given: { event: {} }, answers: [{ status: 200 }]",
            "answers[0].status\n    \
            the route publishes: RabbitMQ confirms (`{}`) or there is a `fault`",
        ),
        (
            "route: out, given: { event: {} }, answers: [{ fault: nack }]",
            "answers[0].fault\n    \
            the route calls an HTTP API, where there is no `nack`",
        ),
        (
            "route: out, given: { event: {} }, answers: [{ status: 500, fault: reset }]",
            "answers[0].status\n    is part of an answer, and with `fault` there is none: keep \
            one of them",
        ),
        (
            "route: out, given: { event: {} }, answers: [{ headers: { A: \"b\\nc\" } }]",
            "answers[0].headers.A\n    does not fit into a header: it holds a line break or the \
            like",
        ),
        (
            "route: in, given: { webhook: { body: 1, raw: '2' } }",
            "given.webhook.raw\n    says the \
            body once more: `body` is there already",
        ),
        (
            "route: out, given: { event: {} }, expect: { requests: [{}, { form: {}, raw: '' }] }",
            "expect.requests[1].raw\n    says the body once more: `form` is there already",
        ),
        (
            "route: out, given: { event: {} }, expect: { reason: expired }",
            "expect.reason\n    is \
            why a delivery is dead: write `outcome: dead` beside it",
        ),
        (
            "route: out, given: { event: {} }, expect: { outcome: [] }",
            "expect.outcome\n    is \
            empty: `nothing` means no event",
        ),
        (
            "route: out, given: { event: {} }, now: yesterday",
            "now\n    `yesterday` is not a time: \
            write it as 2026-01-31T12:00:00Z",
        ),
    ];
    for (test, problem) in cases {
        refuses_test(test, &format!("tests.a test.{problem}"));
    }
}

#[test]
fn what_is_missing_has_a_stand_in_only_where_that_is_asked_for() {
    let yaml = with(
        "    auth: { bearer: '${TOKEN}', headers: { X-Key: '${file:/no/where}' } }\n    \
         proxy: '${PROXY_URL:?where}'\n",
        "",
    );
    let folder = Folder::new(&[("a.yaml", &yaml)]);
    assert_eq!(folder.load(&[]).unwrap_err().problems.len(), 3);
    let set: Environment = [("TOKEN", "given")].into_iter().collect();
    let environment = set.with_stand_ins();
    let loaded = load(&[folder.path().to_owned()], &environment).unwrap();
    let api = &loaded.config.upstreams["api"].api;
    assert_eq!(api.auth.bearer.as_ref().unwrap().expose(), "given");
    assert_eq!(api.auth.headers["X-Key"].expose(), "test-no-where");
    assert_eq!(api.proxy.as_ref().unwrap().as_str(), "https://proxy-url.test/");
    assert_eq!(environment.stood_in(), ["/no/where", "PROXY_URL"]);

    let secrets = "verify: { standard_webhooks: { secrets: ['${A_WEBHOOK_SECRET}'] } }";
    let yaml = hook(&format!("path: /h, {secrets}, event: {{ type: t }}"), "exchange: e", "");
    let folder = Folder::new(&[("a.yaml", &yaml)]);
    let environment = Environment::default().with_stand_ins();
    assert!(load(&[folder.path().to_owned()], &environment).is_ok());
}
