//! Hostile and clumsy files, and secrets that stay secret.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

#[test]
fn c4_an_alias_bomb_is_refused_before_it_expands() {
    let mut yaml = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..40 {
        let before = format!("*a{}, ", n - 1).repeat(10);
        writeln!(yaml, "a{n}: &a{n} [{before}]").unwrap();
    }
    let report = refused(&yaml);
    assert!(report.contains("too large once its aliases (`*…`) are expanded"), "{report}");
}

#[test]
fn aliased_text_counts_as_often_as_it_is_repeated() {
    let yaml = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), "*a, ".repeat(1000));
    assert!(refused(&yaml).contains("too large once its aliases"));
}

#[test]
fn depth_is_bounded_with_aliases_too() {
    for (open, close) in [("[", "]"), ("{a: ", "}")] {
        let yaml = format!("x: {}{}\n", open.repeat(10_000), close.repeat(10_000));
        refused(&yaml);
    }
    let block: String = (0..1000).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
    refused(&block);
    let mut deep = "x0: &x0 [[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]\n".to_owned();
    for n in 1..10 {
        writeln!(deep, "x{n}: &x{n} [[[[[[[[[[*x{}]]]]]]]]]]", n - 1).unwrap();
    }
    assert!(refused(&deep).contains("nested deeper than 64 levels"));
}

#[test]
fn an_alias_of_itself_is_refused() {
    assert!(refused("a: &a [*a]\n").contains("inside the very thing it refers to"));
}

#[test]
fn c4_a_file_that_is_too_large_or_no_text_is_refused() {
    let folder = Folder::new(&[]);
    std::fs::write(folder.path().join("a.yaml"), vec![b'#'; (16 << 20) + 1]).unwrap();
    std::fs::write(folder.path().join("b.yaml"), b"a: 1\nb: \xff\n").unwrap();
    let report = folder.strip(&folder.load(&[]).unwrap_err().to_string());
    assert_eq!(
        report,
        "a.yaml\n    is larger than 16 MiB\n\nb.yaml\n    is not UTF-8 text: see line 2"
    );
}

#[test]
fn a_thousand_routes_are_read_in_one_go() {
    let mut yaml = "routes:\n".to_owned();
    for n in 0..1000 {
        writeln!(
            yaml,
            "  r{n}:\n    from: {{ rabbitmq: {{ bind: [{{ exchange: e, key: k }}] }} }}\n    \
             to: {{ http: {{ upstream: u{n} }} }}"
        )
        .unwrap();
    }
    yaml.push_str("upstreams:\n");
    for n in 0..1000 {
        writeln!(yaml, "  u{n}: {{ url: 'https://u{n}.example' }}").unwrap();
    }
    assert_eq!(accepted(&yaml).routes.len(), 1000);
}

#[test]
fn c6_secrets_never_show_in_a_report_or_in_debug_output() {
    let folder = Folder::new(&[("secret", "from-a-file-1\n")]);
    let file = folder.path().join("secret").display().to_string();
    let yaml = format!(
        "admin: {{ listen: '${{file:{file}}}', tokens: {{ a: {{ token: token-secret-1, \
         role: x }} }} }}\n\
         log: {{ level: '${{file:{file}}}' }}\n\
         queue: {{ max_size: '${{file:{file}}}' }}\n\
         broker: {{ rabbitmq: {{ url: 'http://user-secret-1:pass-secret-1@h/' }} }}\n\
         upstreams:\n  api:\n    url: https://user-secret-2:pass-secret-2@h\n    \
         proxy: 'ftp://user-secret-3:pass-secret-3@h'\n    timeout: bearer-secret-1\n    \
         headers: {{ A: '{{${{file:{file}}}' }}\n    auth:\n      \
         bearer: bearer-secret-1\n      basic: {{ username: u, password: [pass-secret-4] }}\n      \
         oauth2: {{ client_secret: client-secret-1 }}\n      \
         standard_webhooks: {{ secret: webhook-secret-1 }}\n      \
         headers: {{ 'bad name': header-secret-1 }}\n      \
         query: {{ k: {{ a: query-secret-1 }} }}\n"
    );
    let report = load_text(&yaml).unwrap_err();
    for shown in [report.to_string(), format!("{report:?}"), report.to_json().to_string()] {
        assert!(!shown.contains("secret-"), "{shown}");
        assert!(!shown.contains("from-a-file"), "{shown}");
    }
    assert!(report.problems.len() >= 14, "{report}");
}

#[test]
fn secrets_never_show_in_the_debug_output_of_a_configuration() {
    let yaml = with(
        "    proxy: http://user-secret-3:pass-secret-3@h\n    auth:\n      \
         bearer: bearer-secret-1\n      \
         headers: { X: header-secret-1 }\n      query: { k: query-secret-1 }\n",
        "",
    );
    let config = accepted(&yaml);
    for secret in ["bearer-secret-1", "header-secret-1", "query-secret-1", "pass-secret-3"] {
        assert_eq!(config.mask.apply(secret), "***", "{secret}");
    }
    let shown = config.mask.apply(&format!("{config:?}"));
    assert!(!shown.contains("-secret-"), "{shown}");
}

#[test]
fn basic_credentials_are_masked_as_they_arrive() {
    let basic = "path: /h, verify: { basic: { username: u, password: basic-secret-1 } }";
    let config = accepted(&hook(basic, "exchange: e", ""));
    assert_eq!(config.mask.apply("Basic dTpiYXNpYy1zZWNyZXQtMQ=="), "Basic ***");
}

#[test]
fn secrets_of_webhooks_never_show() {
    const SECRETS: [(&str, &str); 5] = [
        ("github: { secrets: [github-secret-1, github-secret-2] }", "github-secret-2"),
        ("api_key: { keys: [api-key-secret-1] }", "api-key-secret-1"),
        ("basic: { username: u, password: basic-secret-1 }", "basic-secret-1"),
        ("hmac: { header: S, secrets: [hmac-secret-1] }", "hmac-secret-1"),
        (
            "standard_webhooks: { secrets: [whsec_LXNlY3JldC0tc2VjcmV0LS1zZWNyZXQt] }",
            "LXNlY3JldC0tc2VjcmV0LS1zZWNyZXQt",
        ),
    ];
    for (verify, secret) in SECRETS {
        let webhook = format!("path: /h, verify: {{ {verify} }}");
        let config = accepted(&hook(&webhook, "exchange: e", ""));
        assert_eq!(config.mask.apply(secret), "***");
        assert!(!format!("{config:?}").contains(secret), "{verify}");
        // Wherever else it was written by mistake.
        let twice = hook(&webhook, &format!("exchange: e, envelope: {secret}"), "");
        let report = load_text(&twice).unwrap_err();
        for shown in [report.to_string(), report.to_json().to_string()] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
    for verify in [
        "github: { secrets: github-secret-1 }",
        "standard_webhooks: { secrets: [standard-secret-1] }",
        "api_key: { keys: [\"api-key-secret-1\\n\"] }",
        "basic: { username: u, password: [basic-secret-1] }",
    ] {
        let webhook = format!("path: /h, verify: {{ {verify} }}");
        let report = load_text(&hook(&webhook, "exchange: e", "")).unwrap_err();
        assert!(!report.problems.iter().any(|p| p.message.contains("-secret-1")), "{report}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn any_text_is_loaded_or_refused(text in "[ -~\n\t\u{e4}\u{1f355}]{0,200}") {
        let _ = load_chance(&text);
    }

    #[test]
    fn a_damaged_configuration_is_loaded_or_refused(
        at in 0_usize..400,
        of_webhooks in any::<bool>(),
        with in "[-{}\\[\\]:#'\"&*!|>%@`, \n\ta\u{1f355}]{1,3}",
    ) {
        let mut yaml = if of_webhooks {
            hook(
                "path: /h, verify: { hmac: { header: S, secrets: ['a'], signed: '{url}.{raw}' } }",
                "exchange: e, key: '{.type}.x', headers: { A: \"b\" }",
                "    retry: { attempts: 3 }\nserver: { public_url: 'https://h.example' }\n",
            )
        } else {
            super::with(
                "    headers: { A: 'x{.y}', B: \"z\" }\n",
                "    when: >-\n      .a\n      | .b\n    \
                 reply: { exchange: e, event: { type: t } }\n",
            )
        };
        let at = (0..=at.min(yaml.len())).rev().find(|at| yaml.is_char_boundary(*at)).unwrap_or(0);
        yaml.insert_str(at, &with);
        let _ = load_chance(&yaml);
    }

    /// As many problems as there are mistakes, wherever they are.
    #[test]
    fn c1_every_mistake_is_told_at_once(
        wrong in proptest::collection::btree_set(0_usize..8, 1..8),
    ) {
        const LINES: [(&str, &str); 8] = [
            ("queue: { max_size: 1GiB }", "queue: { max_size: x }"),
            ("log: { level: info }", "log: { levle: info }"),
            ("shutdown: { drain: 1s }", "shutdown: { drain: 1 s }"),
            ("admin: { listen: '127.0.0.1:0' }", "admin: { listen: here }"),
            ("server: { max_body: 1MiB }", "server: { max_body: [1] }"),
            ("broker: { rabbitmq: {} }", "broker: { rabbitmq: 5 }"),
            ("upstreams: { a: { url: 'http://x' } }", "upstreams: { a: { uri: 'http://x' } }"),
            ("routes: {}", "telemetry: {}"),
        ];
        let pick = |(n, line): (usize, &(&'static str, &'static str))| {
            if wrong.contains(&n) { line.1 } else { line.0 }
        };
        let yaml: Vec<&str> = LINES.iter().enumerate().map(pick).collect();
        let report = load_text(&yaml.join("\n")).unwrap_err();
        let lines: std::collections::BTreeSet<usize> = report
            .problems
            .iter()
            .map(|problem| match &problem.place {
                Place::File { line, .. } => line - 1,
                other => panic!("{other:?}"),
            })
            .collect();
        prop_assert_eq!(lines, wrong);
    }
}
