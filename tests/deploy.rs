//! What stands in `deploy/`: the image as it is built and run, and manifests that agree with the
//! configuration they ship. `deploy/check.sh` holds them against the schemas.

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use serde_json::{Value, json};
use tidegate::{
    config::{self, Config, Environment},
    mock,
};
use tidegate_adapters::units;
use tidegate_tests::{
    Api,
    container::{Container, Image, documents, repository},
    eventually,
    gateway::client,
};

const IN_TIME: Duration = Duration::from_secs(60);

/// In which webhooks are still taken after SIGTERM.
const LINGER: Duration = Duration::from_secs(2);

/// For closing the queue after the drain.
const CLOSING: Duration = Duration::from_secs(3);

/// Where Kubernetes mounts the Secret.
const SECRETS: &str = "/run/secrets/tidegate/";

// ===== the image =====

#[test]
fn the_image_holds_one_static_binary_and_the_files_it_looks_for() {
    let image = Image::get();
    let mut found = BTreeMap::new();
    list(image.root(), image.root(), &mut found);
    let expected = [
        ("data", 0o40750),
        ("etc", 0o40755),
        ("etc/group", 0o100_644),
        ("etc/passwd", 0o100_644),
        ("etc/ssl", 0o40755),
        ("etc/ssl/certs", 0o40755),
        ("etc/ssl/certs/ca-certificates.crt", 0o100_644),
        ("tidegate", 0o100_755),
        ("tmp", 0o41777),
    ];
    let expected = expected.map(|(path, mode)| (path.to_owned(), mode));
    assert_eq!(found, BTreeMap::from(expected), "modes in decimal");
    let binary = std::fs::read(image.root().join("tidegate")).expect("readable");
    let kinds = segments(&binary);
    assert!(kinds.contains(&PT_LOAD), "{kinds:?}");
    assert!(!kinds.contains(&PT_INTERP), "it wants a dynamic loader: {kinds:?}");
    let user = std::fs::read_to_string(image.root().join("etc/passwd")).expect("readable");
    assert!(user.starts_with(&format!("tidegate:x:{0}:{0}:", image.user())), "{user}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_image_delivers_as_a_user_without_privileges_on_a_read_only_root_and_stops_in_order() {
    let api = Api::start().await;
    let port = api.url().rsplit_once(':').expect("a port").1.to_owned();
    let mut container = Container::new();
    ship(&container, &shipped("base"));
    let local = format!(
        "\
upstreams:
  local:
    url: http://localhost:{port}
    egress: {{ allow: [127.0.0.0/8, '::1/128'] }}
routes:
  echo:
    from: {{ webhook: {{ path: /hooks/echo, verify: {{ none: {{}} }}, event: {{ type: echo }} }} }}
    to: {{ http: {{ upstream: local, path: /echo }} }}
"
    );
    container.mount("/etc/tidegate/local.yaml", &local);
    container.set("TIDEGATE__SERVER__LISTEN", "127.0.0.1:0");
    container.set("TIDEGATE__ADMIN__LISTEN", "127.0.0.1:0");
    container.start();
    let admin = container.listener("admin listening").await;
    container.set("TIDEGATE_ADMIN", &admin);
    let readyz = format!("{admin}/readyz");
    eventually("it is ready", IN_TIME, || async {
        client().get(&readyz).send().await.ok()?.status().is_success().then_some(())
    })
    .await;
    let health = container.run(&["healthcheck"]).await;
    let said = String::from_utf8_lossy(&health.stderr);
    assert!(health.status.success(), "{said}\n{}", container.log());

    let process = |file| std::fs::read_to_string(format!("/proc/{}/{file}", container.pid()));
    let status = process("status").expect("it runs");
    assert!(!status.contains("Uid:\t0\t"), "{status}");
    assert!(status.contains("CapEff:\t0000000000000000\n"), "{status}");
    let mounts = process("mounts").expect("it runs");
    let root = mounts.lines().find(|line| line.split(' ').nth(1) == Some("/")).expect("a root");
    assert!(root.split(' ').nth(3).is_some_and(|options| options.starts_with("ro")), "{root}");

    for path in probes() {
        let answer = client().get(format!("{admin}{path}")).send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{path}: a probe has no token");
    }
    let webhooks = container.listener("webhooks listening").await;
    let sent = client().post(format!("{webhooks}/hooks/echo"));
    let sent = sent.header("Content-Type", "application/json").body(r#"{"n": 1}"#).send();
    assert_eq!(sent.await.expect("an answer").status(), 202);
    eventually("it has arrived, by the name of a host", IN_TIME, || async {
        (api.count() == 1).then_some(())
    })
    .await;
    assert_eq!(container.stop().await, Some(0), "{}", container.log());
}

#[tokio::test]
async fn the_image_says_when_it_has_no_configuration() {
    let container = Container::new();
    let words = Image::get().words("CMD");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let output = container.run(&words).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("/etc/tidegate"), "{said}");
}

// ===== Kubernetes =====

#[tokio::test]
async fn every_overlay_agrees_with_the_configuration_it_ships() {
    for name in ["base", "overlays/dev", "overlays/production"] {
        let Some(resources) = render(name).await else { return };
        let files = config_map(&resources);
        let container = Container::new();
        ship(&container, &files);
        let output = container.run(&["check", "-c", "/etc/tidegate"]).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {said}");

        let config = load(&files);
        let set = find(&resources, "StatefulSet", "tidegate");
        agrees_on_stopping(name, &set["spec"]["template"]["spec"], &config);
        agrees_on_ports(name, &resources, &config);
        agrees_with_the_image(name, &set["spec"]);
        let secret = resources.iter().find(|resource| resource["kind"] == "Secret");
        match secret {
            Some(secret) => {
                for wanted in secrets(&files) {
                    assert!(secret["data"][&wanted].is_string(), "{name}: no secret {wanted}");
                }
            }
            None => assert_ne!(name, "overlays/dev", "it brings its own secrets"),
        }
        if name == "overlays/production" {
            assert!(secret.is_none(), "production's are its own");
            is_monitored(&resources, &files);
        }
    }
}

#[test]
fn the_mocks_are_valid() {
    for path in ["deploy/kubernetes/overlays/dev/mock.yaml", "deploy/compose/mock.yaml"] {
        let config = mock::config::load(&repository().join(path)).expect("valid");
        assert!(config.apis.contains_key("loyalty"), "{path}");
    }
}

fn agrees_on_stopping(name: &str, pod: &Value, config: &Config) {
    let seconds = |value: &Value| Duration::from_secs(value.as_u64().expect("seconds"));
    let before = seconds(&pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]);
    let needed = before + LINGER + config.settings.shutdown.drain + CLOSING;
    let grace = seconds(&pod["terminationGracePeriodSeconds"]);
    assert!(grace >= needed, "{name}: killed after {grace:?}, it may need {needed:?}");
}

fn agrees_on_ports(name: &str, resources: &[Value], config: &Config) {
    let set = find(resources, "StatefulSet", "tidegate");
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let expected = json!([
        { "name": "webhooks", "containerPort": config.settings.server.listen.port() },
        { "name": "admin", "containerPort": config.settings.admin.listen.port() },
    ]);
    assert_eq!(container["ports"], expected, "{name}");
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(container[probe]["httpGet"]["port"], "admin", "{name}: {probe}");
    }
    let targets = |service| {
        let service = find(resources, "Service", service);
        let ports = service["spec"]["ports"].as_array().expect("a list").iter();
        ports.map(|port| port["targetPort"].as_str().expect("by name")).collect::<Vec<_>>()
    };
    assert_eq!(targets("tidegate"), ["webhooks"], "{name}: the public one");
    assert_eq!(targets("tidegate-pods"), ["admin"], "{name}");
    assert_eq!(set["spec"]["serviceName"], "tidegate-pods");
    let policy = find(resources, "NetworkPolicy", "tidegate");
    assert_eq!(policy["spec"]["ingress"], json!([{ "ports": [{ "port": "webhooks" }] }]));
    // Who may call from outside of the pod must show a token.
    assert!(config.settings.admin.tokens.contains_key("prometheus"), "{name}");
}

fn agrees_with_the_image(name: &str, set: &Value) {
    let image = Image::get();
    let pod = &set["template"]["spec"];
    let container = &pod["containers"][0];
    for key in ["runAsUser", "runAsGroup", "fsGroup"] {
        assert_eq!(pod["securityContext"][key], image.user(), "{name}: {key}");
    }
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let hardened = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": { "drop": ["ALL"] },
        "readOnlyRootFilesystem": true,
    });
    assert_eq!(container["securityContext"], hardened, "{name}");
    assert_eq!(container["args"], json!(image.words("CMD")), "{name}");
    let mounts = container["volumeMounts"].as_array().expect("a list").iter();
    let mounts: Vec<_> = mounts.map(|mount| mount["mountPath"].as_str().expect("a path")).collect();
    assert_eq!(mounts, ["/data", "/etc/tidegate", SECRETS.trim_end_matches('/')], "{name}");
    assert!(image.instruction("ENV").contains("=/data/"), "the queue is on the volume");
    assert_eq!(set["replicas"], 1, "{name}: one process owns a queue");
}

/// The component finds the port, and shows the token that may read.
fn is_monitored(resources: &[Value], files: &BTreeMap<String, String>) {
    let monitor = &find(resources, "ServiceMonitor", "tidegate")["spec"];
    let service = find(resources, "Service", "tidegate-pods");
    for (label, value) in monitor["selector"]["matchLabels"].as_object().expect("labels") {
        assert_eq!(&service["metadata"]["labels"][label], value, "{label}");
    }
    let endpoint = &monitor["endpoints"][0];
    assert_eq!(endpoint["port"], service["spec"]["ports"][0]["name"]);
    let key = endpoint["authorization"]["credentials"]["key"].as_str().expect("a key");
    let token = format!("'${{file:{SECRETS}{key}}}', role: read }}");
    assert!(files["gateway.yaml"].contains(&token), "{token}");
}

// ===== compose =====

#[tokio::test]
async fn the_compose_file_agrees_with_the_configuration_it_mounts() {
    let deploy = repository().join("deploy");
    let text = std::fs::read_to_string(deploy.join("compose.yaml")).expect("readable");
    let compose = documents(&text).remove(0);
    for service in ["gateway", "loyalty"] {
        let service = &compose["services"][service];
        assert_eq!(service["read_only"], true);
        assert_eq!(service["cap_drop"], json!(["ALL"]));
        assert_eq!(service["security_opt"], json!(["no-new-privileges:true"]));
    }
    let gateway = &compose["services"]["gateway"];
    let container = Container::new();
    for name in gateway["secrets"].as_array().expect("a list") {
        let name = name.as_str().expect("a name");
        let file = compose["secrets"][name]["file"].as_str().expect("a file");
        let secret = std::fs::read_to_string(deploy.join(file)).expect("readable");
        container.mount(&format!("/run/secrets/{name}"), &secret);
    }
    let files = files(&deploy.join("compose/gateway"));
    for (name, text) in &files {
        container.mount(&format!("/etc/tidegate/{name}"), text);
    }
    let output = container.run(&["check", "-c", "/etc/tidegate"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let settings = &documents(&files["gateway.yaml"])[0];
    let duration =
        |value: &Value| units::parse_duration(value.as_str().expect("text")).expect("a duration");
    let needed = duration(&settings["shutdown"]["drain"]) + LINGER + CLOSING;
    assert!(duration(&gateway["stop_grace_period"]) >= needed, "{needed:?}");
}

// ===== reading =====

/// Files and folders under `folder`, relative to `root`, with their modes.
fn list(root: &Path, folder: &Path, found: &mut BTreeMap<String, u32>) {
    for entry in folder.read_dir().expect("readable") {
        let path = entry.expect("readable").path();
        let meta = path.symlink_metadata().expect("readable");
        let name = path.strip_prefix(root).expect("within").display().to_string();
        found.insert(name, meta.permissions().mode());
        if meta.is_dir() {
            list(root, &path, found);
        }
    }
}

/// A segment to be loaded, and one that names the dynamic loader (elf(5)).
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;

/// The types of the program headers of a 64-bit little-endian ELF file (elf(5)).
fn segments(file: &[u8]) -> Vec<u32> {
    assert_eq!(file[..6], *b"\x7fELF\x02\x01");
    let number = |at: usize, bytes: usize| {
        let bytes = file[at..at + bytes].iter().rev();
        bytes.fold(0usize, |number, byte| number << 8 | usize::from(*byte))
    };
    let (start, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let kinds = (0..count).map(|n| number(start + n * size, 4));
    kinds.map(|kind| u32::try_from(kind).expect("four bytes")).collect()
}

/// The files of a folder, by name.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let entries = folder.read_dir().expect("a folder").map(|entry| entry.expect("readable"));
    let read = |entry: std::fs::DirEntry| {
        let text = std::fs::read_to_string(entry.path()).expect("readable");
        (entry.file_name().into_string().expect("UTF-8"), text)
    };
    entries.map(read).collect()
}

/// The configuration that the base ships.
fn shipped(name: &str) -> BTreeMap<String, String> {
    files(&repository().join("deploy/kubernetes").join(name).join("config"))
}

/// Paths of the probes of the base.
fn probes() -> Vec<String> {
    let path = repository().join("deploy/kubernetes/base/stateful-set.yaml");
    let set = documents(&std::fs::read_to_string(path).expect("readable")).remove(0);
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let probes = ["startupProbe", "livenessProbe", "readinessProbe"];
    let paths = probes.map(|probe| container[probe]["httpGet"]["path"].as_str().map(str::to_owned));
    paths.map(|path| path.expect("each has one")).to_vec()
}

/// The names of the files that `${file:…}` names, all of them of the one Secret.
fn secrets(files: &BTreeMap<String, String>) -> Vec<String> {
    let named = files.values().flat_map(|text| text.split("${file:").skip(1));
    named
        .map(|rest| {
            let path = rest.split('}').next().expect("it has an end");
            path.strip_prefix(SECRETS).expect("where the Secret is mounted").to_owned()
        })
        .collect()
}

/// What stands in a secret's file.
fn made_up(name: &str) -> String {
    match name {
        // Nobody listens there; a gateway waits for its broker.
        "rabbitmq-url" => "amqp://gateway:made-up@127.0.0.1:1/%2f\n".to_owned(),
        name if name.ends_with("webhook-secret") => format!("whsec_{}\n", "c2VjcmV0".repeat(4)),
        name => format!("made-up-{name}\n"),
    }
}

/// Mounts `files` and made-up secrets as Kubernetes does.
fn ship(container: &Container, files: &BTreeMap<String, String>) {
    for (name, text) in files {
        container.mount(&format!("/etc/tidegate/{name}"), text);
    }
    for name in secrets(files) {
        container.mount(&format!("{SECRETS}{name}"), &made_up(&name));
    }
}

/// Reads `files` as a configuration, with made-up secrets.
fn load(files: &BTreeMap<String, String>) -> Config {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let here = format!("{}/", folder.path().display());
    for name in secrets(files) {
        std::fs::write(folder.path().join(&name), made_up(&name)).expect("writable");
    }
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text.replace(SECRETS, &here)).expect("writable");
    }
    let loaded = config::load(&[folder.path().to_owned()], &Environment::default());
    loaded.unwrap_or_else(|report| panic!("{report}")).config
}

/// What kustomize makes of a folder of `deploy/kubernetes`. `None` where there is no kubectl, and
/// never in CI.
async fn render(name: &str) -> Option<Vec<Value>> {
    let own = repository().join("target/deploy-tools/bin/kubectl");
    let kubectl = if own.is_file() { own } else { "kubectl".into() };
    let mut render = tokio::process::Command::new(kubectl);
    render.arg("kustomize").arg(repository().join("deploy/kubernetes").join(name));
    let output = match render.output().await {
        Ok(output) => output,
        Err(_) if std::env::var_os("CI").is_none() => {
            let line = "skipped: no kubectl here, deploy/install-tools.sh installs one\n";
            std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).expect("stderr");
            return None;
        }
        Err(error) => panic!("kubectl: {error}; run deploy/install-tools.sh"),
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(documents(&String::from_utf8(output.stdout).expect("UTF-8")))
}

fn find<'r>(resources: &'r [Value], kind: &str, name: &str) -> &'r Value {
    let is = |resource: &&Value| resource["kind"] == kind && resource["metadata"]["name"] == name;
    resources.iter().find(is).unwrap_or_else(|| panic!("no {kind} {name}"))
}

/// The files of the ConfigMap that the gateway reads.
fn config_map(resources: &[Value]) -> BTreeMap<String, String> {
    let data = &find(resources, "ConfigMap", "tidegate")["data"];
    serde_json::from_value(data.clone()).expect("files by name")
}
