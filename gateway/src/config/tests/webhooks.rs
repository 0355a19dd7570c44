//! Webhooks: every scheme, and what is said of those that could not work or would be open.

use std::time::Duration;

use tidegate_adapters::http::{
    HmacAlgorithm, HmacEncoding, WebhookConfig,
    webhook::{SecretEncoding, VerifyConfig},
};

use super::*;

const NONE: &str = "path: /h, verify: { none: {} }";

/// A webhook that is verified by `verify`, with more keys beside it.
fn verified(verify: &str, more: &str) -> String {
    hook(&format!("path: /h, verify: {{ {verify} }}{more}"), "exchange: e", "")
}

/// With what schemes that sign the URL need.
fn public(yaml: &str) -> String {
    format!("{yaml}server: {{ public_url: 'https://hooks.example.com' }}\n")
}

fn webhook(config: &Config) -> &WebhookConfig {
    let Source::Webhook(source) = &config.routes["h"].from else { panic!("a webhook") };
    source
}

#[test]
fn every_scheme_needs_no_more_than_its_secrets() {
    for (verify, name, tolerance) in [
        ("stripe: { secrets: [whsec_test_secret] }", "stripe", Some(300)),
        ("github: { secrets: [It's a Secret, another] }", "github", None),
        ("shopify: { secrets: [shpss_secret] }", "shopify", None),
        ("slack: { secrets: [8f742231b10e8888abcd99yyyzzz85a5] }", "slack", Some(300)),
        ("square: { secrets: [asdf1234asdf] }", "square", None),
        ("twilio: { secrets: [12345] }", "twilio", None),
        ("api_key: { keys: [a-key] }", "api_key", None),
        ("basic: { username: u, password: p }", "basic", None),
        ("none: {}", "none", None),
        ("none:", "none", None),
        ("hmac: { header: X-Sig, secrets: [s] }", "hmac", None),
    ] {
        let config = accepted(&public(&verified(verify, "")));
        let verify = &webhook(&config).verify;
        assert_eq!(verify.to_string(), name);
        assert_eq!(verify.tolerance(), tolerance.map(Duration::from_secs), "{name}");
    }
}

#[test]
fn schemes_default_as_documented() {
    let config = accepted(&verified("hmac: { header: X-Sig, secrets: [a, b] }", ""));
    let VerifyConfig::Hmac(hmac) = &webhook(&config).verify else { panic!("an HMAC") };
    assert_eq!((hmac.algorithm, hmac.encoding), (HmacAlgorithm::Sha256, HmacEncoding::Hex));
    assert_eq!((hmac.prefix.as_str(), hmac.signed.as_str()), ("", "{raw}"));
    assert_eq!(hmac.secret_encoding, SecretEncoding::Utf8);
    assert_eq!((hmac.secrets.len(), hmac.tolerance), (2, Duration::from_secs(300)));
    assert!(hmac.timestamp_header.is_none() && hmac.id_header.is_none());

    let config = accepted(&verified("api_key: { keys: [k] }", ""));
    let VerifyConfig::ApiKey(api_key) = &webhook(&config).verify else { panic!("a key") };
    assert_eq!(api_key.header, "X-Api-Key");

    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let config = accepted(&verified(&format!("standard_webhooks: {{ secrets: [{secret}] }}"), ""));
    let VerifyConfig::StandardWebhooks(standard) = &webhook(&config).verify else { panic!() };
    assert_eq!(standard.tolerance, Duration::from_secs(300));
}

#[test]
fn an_hmac_of_ones_own_making_is_read_key_by_key() {
    let config = accepted(&public(&verified(
        "hmac: { header: X-Sig, algorithm: sha1, encoding: base64, prefix: 'v1=', \
         secrets: [c2VjcmV0], secret_encoding: base64, signed: '{id}.{timestamp}.{url}.{raw}', \
         timestamp_header: X-Time, tolerance: 1m, id_header: X-Id }",
        ", dedupe: 2m",
    )));
    let VerifyConfig::Hmac(hmac) = &webhook(&config).verify else { panic!("an HMAC") };
    assert_eq!((hmac.algorithm, hmac.encoding), (HmacAlgorithm::Sha1, HmacEncoding::Base64));
    assert_eq!((hmac.prefix.as_str(), hmac.secret_encoding), ("v1=", SecretEncoding::Base64));
    assert_eq!(hmac.signed, "{id}.{timestamp}.{url}.{raw}");
    assert_eq!(hmac.timestamp_header.as_deref(), Some("X-Time"));
    assert_eq!(hmac.id_header.as_deref(), Some("X-Id"));
    assert_eq!(webhook(&config).verify.tolerance(), Some(Duration::from_secs(60)));
}

#[test]
fn a_webhook_says_how_it_is_verified_and_where_it_is() {
    refuses(
        "routes:\n  h:\n    from: { webhook: {} }\n    to: { rabbitmq: { exchange: e } }\n",
        &[
            "a.yaml:3:13  routes.h.from.webhook\n    needs `path`",
            "a.yaml:3:13  routes.h.from.webhook\n    needs `verify`",
        ],
    );
    refuses(
        &verified("", ""),
        &["a.yaml:3:34  routes.h.from.webhook.verify\n    needs `standard_webhooks`, `hmac`, \
            `stripe`, `github`, `shopify`, `slack`, `square`, `twilio`, `api_key`, `basic` or \
            `none`"],
    );
    refuses(
        &hook("path: /h, verify: none", "exchange: e", ""),
        &["a.yaml:3:42  routes.h.from.webhook.verify\n    must be a map, not text: write \
            `none: {}` below it"],
    );
    refuses(
        &verified("githb: { secrets: [a] }", ""),
        &["a.yaml:3:44  routes.h.from.webhook.verify.githb\n    there is no such key; did you \
            mean `github`?"],
    );
    refuses(
        &verified("none: {}, basic: { username: 'a:b', password: \"\" }", ""),
        &[
            "a.yaml:3:54  routes.h.from.webhook.verify.basic\n    takes one of \
                `standard_webhooks`, `hmac`, `stripe`, `github`, `shopify`, `slack`, `square`, \
                `twilio`, `api_key`, `basic` or `none`, and `none` is there already",
            "a.yaml:3:63  routes.h.from.webhook.verify.basic.username\n    a user name cannot \
                hold `:`, which ends it (RFC 7617)",
            "a.yaml:3:90  routes.h.from.webhook.verify.basic.password\n    a secret must not be \
                empty",
        ],
    );
}

#[test]
fn n13_secrets_are_there_and_of_their_kind() {
    refuses(
        &verified("github: { secrets: [] }", ""),
        &["a.yaml:3:54  routes.h.from.webhook.verify.github.secrets\n    is empty: no request \
            could ever prove itself; list at least one"],
    );
    refuses(
        &verified("api_key: { keys: ['', \"a\\nb\"], header: Host }", ""),
        &[
            "a.yaml:3:62  routes.h.from.webhook.verify.api_key.keys[0]\n    a secret must not be \
                empty",
            "a.yaml:3:66  routes.h.from.webhook.verify.api_key.keys[1]\n    holds a line break or \
                another control character, which no header can carry",
            "a.yaml:3:83  routes.h.from.webhook.verify.api_key.header\n    `Host` is set by HTTP \
                itself; leave it out",
        ],
    );
    refuses(
        &verified("standard_webhooks: { secrets: [secret, whsec_AAAA] }", ""),
        &[
            "a.yaml:3:75  routes.h.from.webhook.verify.standard_webhooks.secrets[0]\n    a \
                Standard Webhooks secret begins with `whsec_`, then Base64",
            "a.yaml:3:83  routes.h.from.webhook.verify.standard_webhooks.secrets[1]\n    a \
                Standard Webhooks secret has 24 to 64 bytes, this one has 3",
        ],
    );
    refuses(
        &verified("stripe: { secret: a }", ""),
        &[
            "a.yaml:3:44  routes.h.from.webhook.verify.stripe\n    needs `secrets`",
            "a.yaml:3:54  routes.h.from.webhook.verify.stripe.secret\n    there is no such key; \
                did you mean `secrets`?",
        ],
    );
}

#[test]
fn what_an_hmac_signs_can_be_read_from_the_request() {
    refuses(
        &verified("hmac: { header: S, secrets: [s], signed: '{id}.{timestamp}.{raw}' }", ""),
        &[
            "a.yaml:3:77  routes.h.from.webhook.verify.hmac.signed\n    holds `{timestamp}`: set \
                `timestamp_header`, which says where it is",
            "a.yaml:3:77  routes.h.from.webhook.verify.hmac.signed\n    holds `{id}`: set \
                `id_header`, which says where it is",
        ],
    );
    refuses(
        &verified("hmac: { header: S, secrets: [s], timestamp_header: T, id_header: s }", ""),
        &["a.yaml:3:98  routes.h.from.webhook.verify.hmac.id_header\n    is `header` too, which \
                carries the signature"],
    );
    refuses(
        &verified("hmac: { header: S, secrets: [s], tolerance: 5m, signed: '{body}' }", ""),
        &[
            "a.yaml:3:77  routes.h.from.webhook.verify.hmac.tolerance\n    has no effect without \
                `timestamp_header`, which says where the timestamp is",
            "a.yaml:3:100  routes.h.from.webhook.verify.hmac.signed\n    `{body}` is none of \
                {raw}, {timestamp}, {id}, {url}",
        ],
    );
    let unsigned = "hmac: { header: S, secrets: [s], signed: '{id}', id_header: I }";
    refuses(
        &verified(unsigned, ""),
        &["a.yaml:3:77  routes.h.from.webhook.verify.hmac.signed\n    has no `{raw}`: who has \
            seen one request can send any body with its signature"],
    );
}

#[test]
fn a_timestamp_without_an_id_that_holds_is_warned_of() {
    let said = |what: &str| {
        format!(
            "a.yaml:3:44  routes.h.from.webhook.verify.hmac\n    {what}: a request that is sent \
             again within its tolerance can pass for a new one; take `event.id` from the body, or \
             sign `{{id}}`, which `id_header` carries"
        )
    };
    let hmac = |signed: &str, more: &str| {
        format!(
            "hmac: {{ header: S, secrets: [s], timestamp_header: T, signed: '{signed}'{more} }}"
        )
    };
    let fresh = hmac("{timestamp}.{raw}", "");
    assert_eq!(
        warned(&verified(&fresh, "")),
        [said("names no id, so every request has a fresh one")]
    );
    let unsigned = hmac("{timestamp}.{raw}", ", id_header: I");
    assert_eq!(warned(&verified(&unsigned, "")), [said("has an id that is not signed")]);
    let none: [&str; 0] = [];
    let signed = hmac("{id}.{timestamp}.{raw}", ", id_header: I");
    assert_eq!(warned(&verified(&signed, "")), none);
    for hmac in [fresh, unsigned] {
        assert_eq!(warned(&verified(&hmac, ", event: { id: '{.body.id}' }")), none);
    }
}

#[test]
fn schemes_that_sign_the_url_need_to_know_it() {
    let said = |key: &str| {
        format!(
            "a.yaml:3:44  routes.h.from.webhook.verify.{key}\n    signs the URL, so \
             `server.public_url` must say what its sender calls, as in https://hooks.example.com"
        )
    };
    for (verify, key) in [
        ("square: { secrets: [s] }", "square"),
        ("twilio: { secrets: [s] }", "twilio"),
        ("hmac: { header: S, secrets: [s], signed: '{url}{raw}' }", "hmac"),
    ] {
        refuses(&verified(verify, ""), &[&said(key)]);
        accepted(&public(&verified(verify, "")));
        let folder = Folder::new(&[("a.yaml", &verified(verify, ""))]);
        folder.load(&[("TIDEGATE__SERVER__PUBLIC_URL", "https://hooks.example.com")]).unwrap();
    }
}

#[test]
fn n14_a_signed_request_is_known_as_a_repeat_for_as_long_as_it_is_good() {
    let why = |scheme: &str, least: &str| {
        format!(
            "a request of `{scheme}` can be sent again for {least}, twice its tolerance, and must \
             be known as a repeat for as long: write {least} or more"
        )
    };
    let stripe = "stripe: { secrets: [s] }";
    refuses(
        &verified(stripe, ", dedupe: off"),
        &[&format!(
            "a.yaml:3:72  routes.h.from.webhook.dedupe\n    cannot be `off`: {}",
            why("stripe", "10m")
        )],
    );
    refuses(
        &verified(stripe, ", dedupe: 599s"),
        &[&format!(
            "a.yaml:3:72  routes.h.from.webhook.dedupe\n    599s is too short: {}",
            why("stripe", "10m")
        )],
    );
    accepted(&verified(stripe, ", dedupe: 10m"));
    // The default is too short for a tolerance beyond half of it.
    refuses(
        &verified(
            "hmac: { header: S, secrets: [s], signed: '{timestamp}{raw}', timestamp_header: T, \
             tolerance: 45045s }",
            "",
        ),
        &[&format!(
            "a.yaml:3:13  routes.h.from.webhook.dedupe\n    24h is too short: {}",
            why("hmac", "90090s")
        )],
    );
    // Nothing tells how long a request without a timestamp is good.
    assert_eq!(
        webhook(&accepted(&verified("github: { secrets: [s] }", ", dedupe: off"))).dedupe,
        None
    );
}

#[test]
fn a_path_is_exact_and_has_one_spelling() {
    for (path, column, said) in [
        ("hooks", 30, "a path begins with `/`"),
        ("/a?b=c", 32, "a path has no query; a webhook is found by its path alone"),
        ("/a#b", 32, "a path has no fragment (`#…`)"),
        ("/a//b", 33, "has an empty segment (`//`)"),
        ("//", 31, "has an empty segment (`//`)"),
        ("/a/../b", 33, "has the segment `..`, which clients resolve"),
        ("/a/.", 33, "has the segment `.`, which clients resolve"),
        ("/a/%2E%2E/b", 33, "`%2E` is `.`: write that"),
        ("/%61", 31, "`%61` is `a`: write that"),
        ("/%c3%bc", 31, "escapes are in capitals: write `%C3`"),
        ("/100%", 34, "a `%` begins two hexadecimal digits; write a literal one `%25`"),
        ("/a b", 32, "` ` cannot stand in a path; percent-encode it"),
        ("/ü", 31, "`ü` cannot stand in a path; percent-encode it"),
    ] {
        let yaml = hook(&format!("path: {path}, verify: {{ none: {{}} }}"), "exchange: e", "");
        refuses(&yaml, &[&format!("a.yaml:3:{column}  routes.h.from.webhook.path\n    {said}")]);
    }
    refuses(
        &hook("path: '/h/{id}', verify: { none: {} }", "exchange: e", ""),
        &["a.yaml:3:34  routes.h.from.webhook.path\n    the path of a webhook is exact: it has \
            no placeholders"],
    );
    for path in ["/", "/a/", "/a/b-c_d.e~f", "/%C3%BC", "/a;b=c,d@e:f", "/a%2Fb"] {
        let yaml = hook(&format!("path: '{path}', verify: {{ none: {{}} }}"), "exchange: e", "");
        assert_eq!(webhook(&accepted(&yaml)).path, path);
    }
}

#[test]
fn c3_two_routes_on_one_path_are_refused_at_the_second() {
    let yaml = format!(
        "{}  i:\n    from: {{ webhook: {{ {NONE} }} }}\n    \
         to: {{ rabbitmq: {{ exchange: e }} }}\n",
        hook(NONE, "exchange: e", "")
    );
    refuses(
        &yaml,
        &["a.yaml:6:24  routes.i.from.webhook.path\n    is the path of the route `h` too; give \
            each one of its own"],
    );
    accepted(&yaml.replacen("path: /h", "path: /h/", 1));
}

#[test]
fn the_answer_to_what_was_accepted_is_a_yes() {
    let respond =
        |respond: &str| hook(&format!("{NONE}, respond: {{ {respond} }}"), "exchange: e", "");
    for status in [199, 301, 404, 500] {
        refuses(
            &respond(&format!("status: {status}")),
            &[&format!(
                "a.yaml:3:67  routes.h.from.webhook.respond.status\n    {status} would say no to \
                 what has been accepted, and its sender would send it again; write a status from \
                 200 to 299"
            )],
        );
    }
    refuses(
        &respond("status: 204, body: '\"ok\"'"),
        &["a.yaml:3:80  routes.h.from.webhook.respond.body\n    a 204 has no body; leave one out"],
    );
    refuses(
        &respond("headers: { Content-Length: 5, tidegate-duplicate: a, A: \"\\x01\" }, body: 1 +"),
        &[
            "a.yaml:3:78  routes.h.from.webhook.respond.headers.Content-Length\n    \
                `Content-Length` is set by HTTP itself; leave it out",
            "a.yaml:3:97  routes.h.from.webhook.respond.headers.tidegate-duplicate\n    Tidegate \
                sets this header itself; leave it out",
            "a.yaml:3:123  routes.h.from.webhook.respond.headers.A\n    has control characters",
            "a.yaml:3:142  routes.h.from.webhook.respond.body\n    not jq: it ends where term is \
                expected",
        ],
    );
    for (body, status) in [("'\"thanks\"'", 200), ("'{id: .body.id}'", 299)] {
        let config = accepted(&respond(&format!("status: {status}, body: {body}")));
        assert_eq!(webhook(&config).respond.as_ref().unwrap().status, status);
    }
    accepted(&respond("status: 204, headers: { X-Seen: '{.headers.x}' }"));
}

#[test]
fn what_runs_on_a_request_is_compiled_when_the_configuration_loads() {
    let report = refused(&hook(
        &format!(
            "{NONE}, split: '.body[', event: {{ type: '{{.body.type', id: '{{nosuch}}', data: \
             'repeat(1)', extensions: {{ Tenant: x }} }}, rate_limit: {{ limit: 0, key: x }}"
        ),
        "exchange: e",
        "",
    ));
    for part in [
        "routes.h.from.webhook.split\n    not jq",
        "routes.h.from.webhook.event.type\n    `{` is never closed",
        "routes.h.from.webhook.event.id\n    `nosuch/0` is not known",
        "routes.h.from.webhook.event.data\n    `repeat` is refused",
        "routes.h.from.webhook.event.extensions.Tenant\n    an extension attribute is",
        "routes.h.from.webhook.rate_limit.limit\n    `0` is not a whole number",
        "routes.h.from.webhook.rate_limit.key\n    there is no such key",
    ] {
        assert!(report.contains(part), "no `{part}` in:\n{report}");
    }
}

#[test]
fn a_webhook_that_anyone_can_call_is_warned_of() {
    assert_eq!(
        warned(&hook(NONE, "exchange: e", "")),
        ["a.yaml:3:44  routes.h.from.webhook.verify.none\n    no request is verified: whoever \
            reaches the listener can send events to this route"]
    );
    let none: [&str; 0] = [];
    assert_eq!(warned(&verified("github: { secrets: [s] }", "")), none);
}

#[test]
fn bodies_fit_into_the_memory_that_all_of_them_have() {
    refuses(
        "server: { max_body: 2MiB, max_buffered: 1MiB }\n",
        &["a.yaml:1:11  server.max_body\n    2MiB could never be received while \
            `server.max_buffered`, all bodies together, is 1MiB"],
    );
    accepted("server: { max_body: 1MiB, max_buffered: 1MiB }\n");
    refuses(
        "server: { public_url: 'https://a.example/?x' }\n",
        &["a.yaml:1:23  server.public_url\n    must not have a query (`?…`)"],
    );
}
