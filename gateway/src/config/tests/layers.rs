//! Files over defaults, the environment over files, and what `${…}` puts in.

use super::*;

const ROUTE: &str = "
routes:
  r:
    from: { rabbitmq: { bind: [{ exchange: e, key: k }] } }
    to: { http: { upstream: api } }
";

#[test]
fn the_files_of_a_folder_are_one_configuration() {
    let folder = Folder::new(&[
        ("10-queue.yaml", "queue: { max_size: 1GiB }\nadmin:\n"),
        ("20-more.yml", "queue: { sqlite: { path: q.db } }\nupstreams:\n"),
        ("api.yaml", "upstreams:\n  api: { url: 'https://a.example' }\n"),
        ("route.yaml", ROUTE),
        (".hidden.yaml", "not: read\n"),
        ("README.md", "not: read\n"),
    ]);
    std::fs::create_dir(folder.path().join("deeper.yaml")).unwrap();
    let config = folder.load(&[]).unwrap().config;
    assert_eq!(config.settings.queue.max_size, 1 << 30);
    assert_eq!(config.settings.queue.sqlite.path, Path::new("q.db"));
    assert_eq!(config.routes.len(), 1);
}

#[test]
fn c10_a_mounted_config_map_is_read_once() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("..2024_01_01");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("a.yaml"), "log: { level: warn }\n").unwrap();
    std::os::unix::fs::symlink("..2024_01_01", folder.path().join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/a.yaml", folder.path().join("a.yaml")).unwrap();
    let loaded = load(&[folder.path().to_owned()], &Environment::default()).unwrap();
    assert_eq!(loaded.config.settings.log.level, LogLevel::Warn);
}

#[test]
fn the_same_file_by_two_paths_is_one_file() {
    let folder = Folder::new(&[("a.yaml", "log: { level: warn }\n")]);
    let paths = [folder.path().to_owned(), folder.path().join("a.yaml")];
    assert!(load(&paths, &Environment::default()).is_ok());
}

#[test]
fn c3_what_two_files_set_names_both_places() {
    let folder = Folder::new(&[
        ("a.yaml", "queue:\n  max_size: 1GiB\nupstreams:\n  api: { url: 'https://a.example' }\n"),
        ("b.yaml", "queue:\n  max_size: 1GiB\nupstreams:\n  api: { timeout: 1s }\n"),
        ("c.yaml", ROUTE),
    ]);
    let report = folder.strip(&folder.load(&[]).unwrap_err().to_string());
    assert_eq!(
        report,
        "b.yaml:2:3  queue.max_size\n    is set in two files; the other one is at a.yaml:2:3\n\n\
         b.yaml:4:3  upstreams.api\n    is set in two files; the other one is at a.yaml:4:3"
    );
}

#[test]
fn problems_of_all_files_come_at_once_and_in_order() {
    let folder = Folder::new(&[
        ("b.yaml", "log: { level: loud }\nshutdown: { drain: x }\n"),
        ("a.yaml", "queue: { max_size: x }\n"),
        ("c.yaml", "a: [\n"),
    ]);
    let report = folder.strip(&folder.load(&[]).unwrap_err().to_string());
    let places: Vec<&str> =
        report.split("\n\n").map(|block| block.split_whitespace().next().unwrap()).collect();
    assert_eq!(places, ["a.yaml:1:20", "b.yaml:1:15", "b.yaml:2:20", "c.yaml:1:4"]);
}

#[test]
fn an_unreadable_file_causes_no_false_alarm_about_names() {
    let folder = Folder::new(&[("a.yaml", ROUTE), ("b.yaml", "upstreams: [\n")]);
    let report = folder.strip(&folder.load(&[]).unwrap_err().to_string());
    assert!(report.starts_with("b.yaml:1:"), "{report}");
    assert!(!report.contains("there is no upstream"), "{report}");
}

#[test]
fn paths_that_hold_nothing_are_named() {
    let folder = Folder::new(&[]);
    let missing = folder.path().join("missing.yaml");
    let report = load(&[folder.path().to_owned(), missing], &Environment::default()).unwrap_err();
    let report = report.to_string().replace(&folder.path().display().to_string(), "F");
    assert_eq!(
        report,
        "F\n    the folder holds no *.yaml or *.yml file\n\n\
         F/missing.yaml\n    cannot be read: No such file or directory (os error 2)"
    );
    let report = load(&[], &Environment::default()).unwrap_err().to_string();
    assert!(report.contains("name a file or folder with -c"), "{report}");
}

#[test]
fn variables_are_put_in_after_parsing() {
    let folder = Folder::new(&[(
        "a.yaml",
        "log: { level: \"${LEVEL:-warn}\" }\n\
         queue: { sqlite: { path: '${DIR}/${NAME:-q}.db' }, max_size: '${SIZE}' }\n\
         shutdown: { drain: '${EMPTY:-3s}' }\n\
         broker: { rabbitmq: { url: 'amqp://${USER_:?say who}@h/' } }\n",
    )]);
    let env = [("DIR", "/d: {x}"), ("SIZE", "1GiB"), ("EMPTY", ""), ("USER_", "u")];
    let settings = folder.load(&env).unwrap().config.settings;
    assert_eq!(settings.log.level, LogLevel::Warn);
    assert_eq!(settings.queue.sqlite.path, Path::new("/d: {x}/q.db"));
    assert_eq!(settings.queue.max_size, 1 << 30);
    assert_eq!(settings.shutdown.drain.as_secs(), 3);
}

#[test]
fn what_is_put_in_is_never_read_again() {
    let yaml = with("    headers: { A: 'x${V}y', B: '{.id}-${V}', C: '$${{V}}' }\n", "");
    let folder = Folder::new(&[("a.yaml", &yaml)]);
    let config = folder.load(&[("V", "{.secret} ${W}")]).unwrap().config;
    let headers = &config.upstreams["api"].api.headers;
    assert_eq!(headers["A"].source(), "x{{.secret}} ${{W}}y");
    assert_eq!(headers["B"].source(), "{.id}-{{.secret}} ${{W}}");
    // Told apart by `$$`, what is left is a template all the same: `{{` is a brace.
    assert_eq!(headers["C"].source(), "${{V}}");
}

#[test]
fn nothing_is_put_into_jq() {
    let report = refused_with(
        &with("    headers: { A: '{.a[\"${V}\"]}' }\n", "    when: .x == \"${V}\"\n"),
        &[("V", "v")],
    );
    assert_eq!(
        report,
        "a.yaml:4:19  upstreams.api.headers.A\n    `${…}` cannot be used inside `{…}`, for its \
            result would be read as jq; put it outside the braces\n\n\
         a.yaml:9:11  routes.r.when\n    `${…}` cannot be used in an expression, for its result \
            would be read as jq; write the value itself, or `$${` where a literal `${` is meant"
    );
}

#[test]
fn a_variable_that_is_not_set_is_a_problem_with_a_place() {
    let report = refused_with(
        "log:\n  level: ${LEVEL}\n  format: '${FORMAT:?text or json}'\n\
         queue:\n  sqlite: { path: '${' }\n  max_size: '${1}'\n  keep: { dead: '${A:-${B}}' }\n",
        &[("LEVELS", "x")],
    );
    assert_eq!(
        report,
        "a.yaml:2:10  log.level\n    the environment variable LEVEL is not set; did you mean \
            `LEVELS`?; set it, or give a default: ${LEVEL:-default}\n\n\
         a.yaml:3:11  log.format\n    the environment variable FORMAT is not set: text or json\n\n\
         a.yaml:5:19  queue.sqlite.path\n    `${` without its `}`; write `$${` where a literal \
            `${` is meant\n\n\
         a.yaml:6:13  queue.max_size\n    `${1}` is not understood: write ${VAR}, ${VAR:-default}, \
            ${VAR:?message} or ${file:/path}, and `$${` where a literal `${` is meant\n\n\
         a.yaml:7:17  queue.keep.dead\n    `${…}` within `${…}` is not read: write one of them only"
    );
}

#[test]
fn c6_files_are_put_in_without_their_last_newline_and_are_secrets() {
    let folder = Folder::new(&[("token", "hush-hush\n\n"), ("crlf", "hush-crlf\r\n")]);
    let at = |name: &str| folder.path().join(name).display().to_string();
    let yaml = with(
        &format!(
            "    auth: {{ query: {{ k: '${{file:{}}}' }}, headers: {{ X: '${{file:{}}}' }} }}\n",
            at("token"),
            at("crlf")
        ),
        "",
    );
    let config = accepted(&yaml);
    let auth = &config.upstreams["api"].api.auth;
    assert_eq!(auth.query["k"].expose(), "hush-hush\n");
    assert_eq!(auth.headers["X"].expose(), "hush-crlf");
    assert_eq!(config.mask.apply("say hush-crlf"), "say ***");
}

#[test]
fn the_environment_overrides_settings() {
    let folder = Folder::new(&[("a.yaml", "queue: { sqlite: { path: a.db } }\nlog:\n")]);
    let env = [
        ("TIDEGATE__QUEUE__SQLITE__PATH", "/b.db"),
        ("TIDEGATE__QUEUE__MAX_SIZE", "1GiB"),
        ("TIDEGATE__LOG__LEVEL", "debug"),
        ("TIDEGATE__BROKER__RABBITMQ__URL", "amqp://u:override-me@h/"),
        ("TIDEGATE__ADMIN__TOKENS__OPS__TOKEN", "${NOT_READ}"),
        ("TIDEGATE__ADMIN__TOKENS__OPS__ROLE", "read"),
        ("TIDEGATE__TELEMETRY__OTLP", "http://collector:4317"),
        ("TIDEGATE_CONFIG", "x"),
        ("TIDEGATE_ADMIN_TOKEN", "x"),
        ("TIDEGATE_SERVICE_PORT", "x"),
    ];
    let config = folder.load(&env).unwrap().config;
    let telemetry = config.settings.telemetry.as_ref().unwrap();
    assert_eq!(telemetry.otlp.as_str(), "http://collector:4317/");
    assert_eq!(config.settings.queue.sqlite.path, Path::new("/b.db"));
    assert_eq!(config.settings.queue.max_size, 1 << 30);
    assert_eq!(config.settings.log.level, LogLevel::Debug);
    assert_eq!(config.settings.admin.tokens["ops"].token.expose(), "${NOT_READ}");
    let Broker::Rabbitmq(rabbitmq) = &config.settings.broker else { panic!() };
    assert_eq!(rabbitmq.url.expose(), "amqp://u:override-me@h/");
    assert_eq!(config.mask.apply("override-me"), "***");
}

#[test]
fn a_wrong_override_names_its_variable() {
    let report = refused_with(
        "broker: { embedded: {} }\n",
        &[
            ("TIDEGATE__LOG__LEVL", "debug"),
            ("TIDEGATE__NOTHING__LIKE__IT", "1"),
            ("TIDEGATE__QUEUE", "big"),
            ("TIDEGATE__ROUTES__R__WHEN", "true"),
            ("TIDEGATE__SHUTDOWN__DRAIN", "soon"),
            ("TIDEGATE__shutdown", "x"),
            ("TIDEGATE__BROKER__RABBITMQ__URL", "amqp://h/"),
        ],
    );
    assert_eq!(
        report,
        "environment variable TIDEGATE__BROKER__RABBITMQ__URL  broker.rabbitmq\n    takes one of \
            `rabbitmq` or `embedded`, and `embedded` is there already\n\n\
         environment variable TIDEGATE__LOG__LEVL  log.levl\n    no setting has this name; did you \
            mean `TIDEGATE__LOG__LEVEL`?\n\n\
         environment variable TIDEGATE__NOTHING__LIKE__IT  nothing\n    no setting has this \
            name\n\n\
         environment variable TIDEGATE__QUEUE  queue\n    must be a map (`key: value`), not \
            text\n\n\
         environment variable TIDEGATE__ROUTES__R__WHEN\n    overrides are for settings only; \
            write routes in a file, with ${VAR} where a value comes from the environment\n\n\
         environment variable TIDEGATE__SHUTDOWN__DRAIN  shutdown.drain\n    `soon` is not a \
            duration: write 500ms, 10s, 5m, 1h or 3d\n\n\
         environment variable TIDEGATE__shutdown\n    overrides are written in capitals: \
            TIDEGATE__SHUTDOWN"
    );
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_text_is_a_problem_where_it_is_used() {
    use std::{ffi::OsString, os::unix::ffi::OsStringExt as _};

    let bad = || OsString::from_vec(vec![0xff]);
    let env: Environment = [("BAD", bad()), ("TIDEGATE__LOG__LEVEL", bad())].into_iter().collect();
    let folder = Folder::new(&[("a.yaml", "log: { format: '${BAD}' }\n")]);
    let report = load(&[folder.path().to_owned()], &env).unwrap_err();
    assert_eq!(
        folder.strip(&report.to_string()),
        "a.yaml:1:16  log.format\n    the environment variable BAD is not UTF-8 text\n\n\
         environment variable TIDEGATE__LOG__LEVEL\n    the environment variable \
            TIDEGATE__LOG__LEVEL is not UTF-8 text"
    );
}
