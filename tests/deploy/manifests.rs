//! What the manifests ask for exists in the product, and the product runs as they say.

use std::{
    collections::BTreeSet,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate::config::{self, Config, Environment};
use tidegate_tests::{eventually, process::signal};
use tokio::process::Command;

use super::{PYTHON, file, jail::Jail, text};

const IN_TIME: Duration = Duration::from_secs(60);

/// What comes after not-ready and before the drain: webhooks still taken, sources stopping.
const BEFORE_DRAIN: Duration = Duration::from_secs(2 + 5);

/// For the queue to close.
const MARGIN: Duration = Duration::from_secs(5);

const MOUNT: &str = "/run/secrets/tidegate";

/// What kubectl makes of the base or of an overlay.
struct Rendered(Vec<Value>);

impl Rendered {
    async fn of(name: &str) -> Self {
        let python = file(PYTHON);
        assert!(python.is_file(), "run tests/install-deploy-tools.sh");
        let mut render = Command::new(python);
        let output = render.arg(file("tests/deploy/check.py")).args(["render", name]).output();
        let output = output.await.expect("python");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self(serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    fn all<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |document| document["kind"] == kind)
    }

    fn one(&self, kind: &str, name: &str) -> &Value {
        let named = |document: &&Value| document["metadata"]["name"] == name;
        let mut all = self.0.iter().filter(|document| document["kind"] == kind);
        all.find(named).unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    fn pod(&self) -> &Value {
        &self.one("StatefulSet", "tidegate")["spec"]["template"]["spec"]
    }

    /// The gateway's container.
    fn container(&self) -> &Value {
        &self.pod()["containers"][0]
    }

    /// Its ConfigMap and made-up secrets as files, as the kubelet lays them out.
    fn files(&self) -> Files {
        let files = Files::new(&self.one("ConfigMap", "tidegate")["data"]);
        for name in self.secrets() {
            let generated = self.all("Secret").find_map(|secret| secret["data"][&name].as_str());
            let secret = match (generated, &*name) {
                (Some(base64), _) => decoded(base64),
                (None, "rabbitmq-url") => "amqp://user:password@rabbitmq:5672/%2f".to_owned(),
                (None, "loyalty-webhooks") => "whsec_dGhpcyBpcyBub3QgYSBzZWNyZXQgYXQgYWxs".into(),
                (None, name) => format!("made-up-{name}"),
            };
            files.write_secret(&name, &secret);
        }
        files
    }

    /// The files that its configuration reads its secrets from.
    fn secrets(&self) -> BTreeSet<String> {
        let config = self.one("ConfigMap", "tidegate")["data"].as_object().expect("files");
        let texts = config.values().filter_map(Value::as_str);
        let named = texts.flat_map(|text| text.split("${file:").skip(1));
        let named = named.map(|rest| rest.split('}').next().expect("an end"));
        named
            .map(|path| {
                let name = path.strip_prefix(&format!("{MOUNT}/"));
                name.unwrap_or_else(|| panic!("{path} is not in the Secret's folder")).to_owned()
            })
            .collect()
    }
}

fn decoded(base64: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    String::from_utf8(STANDARD.decode(base64).expect("Base64")).expect("text")
}

/// Mounted files of one pod.
struct Files {
    folder: TempDir,
    version: std::cell::Cell<u32>,
}

impl Files {
    fn new(data: &Value) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let own = folder.path();
        std::fs::set_permissions(own, std::fs::Permissions::from_mode(0o755)).expect("ours");
        std::fs::create_dir(own.join("config")).expect("new");
        std::fs::create_dir(own.join("secrets")).expect("new");
        let files = Self { folder, version: std::cell::Cell::new(0) };
        files.swap(data);
        for name in data.as_object().expect("files").keys() {
            let target = Path::new("..data").join(name);
            symlink(target, files.config().join(name)).expect("new");
        }
        files
    }

    /// Another version of the ConfigMap, as the kubelet puts it in place: a folder of its own, then
    /// one link renamed.
    fn swap(&self, data: &Value) {
        self.version.set(self.version.get() + 1);
        let version = format!("..version-{}", self.version.get());
        let folder = self.config().join(&version);
        std::fs::create_dir(&folder).expect("new");
        for (name, content) in data.as_object().expect("files") {
            std::fs::write(folder.join(name), content.as_str().expect("text")).expect("writable");
        }
        let new = self.config().join("..data_tmp");
        symlink(version, &new).expect("new");
        std::fs::rename(new, self.config().join("..data")).expect("one folder");
    }

    fn write_secret(&self, name: &str, secret: &str) {
        std::fs::write(self.secrets().join(name), secret).expect("writable");
    }

    fn config(&self) -> std::path::PathBuf {
        self.folder.path().join("config")
    }

    fn secrets(&self) -> std::path::PathBuf {
        self.folder.path().join("secrets")
    }

    /// Loads it, with the secrets where they are here.
    fn load(&self) -> Config {
        let here = tempfile::tempdir().expect("a folder");
        for entry in std::fs::read_dir(self.config().join("..data")).expect("readable") {
            let entry = entry.expect("readable");
            let yaml = std::fs::read_to_string(entry.path()).expect("text");
            let yaml = yaml.replace(MOUNT, &self.secrets().display().to_string());
            std::fs::write(here.path().join(entry.file_name()), yaml).expect("writable");
        }
        let loaded = config::load(&[here.path().to_owned()], &Environment::default());
        loaded.unwrap_or_else(|report| panic!("{report}")).config
    }
}

fn names_of(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(|entry| entry["name"].as_str()).collect()
}

/// A selector of labels, and who has them.
fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector.as_object().expect("labels");
    !wanted.is_empty() && wanted.iter().all(|(name, value)| labels[name] == *value)
}

fn seconds(value: &Value) -> Duration {
    Duration::from_secs(value.as_u64().unwrap_or_else(|| panic!("no seconds: {value}")))
}

const ALL: [&str; 3] = ["base", "dev", "production"];

#[tokio::test]
async fn configuration_ports_and_times_of_the_manifests_are_the_gateways() {
    for name in ALL {
        let rendered = Rendered::of(name).await;
        let config = rendered.files().load();
        let settings = &config.settings;
        let (pod, container) = (rendered.pod(), rendered.container());
        let port = |name: &str| {
            let mut ports = container["ports"].as_array().expect("ports").iter();
            let found = ports.find(|port| port["name"] == name);
            found.unwrap_or_else(|| panic!("no port {name}"))["containerPort"].clone()
        };
        assert_eq!(port("webhooks"), settings.server.listen.port(), "{name}");
        assert_eq!(port("admin"), settings.admin.listen.port(), "{name}");
        assert!(!settings.admin.listen.ip().is_loopback(), "{name}: probes come from the node");
        let given = seconds(&pod["terminationGracePeriodSeconds"]);
        let before = seconds(&container["lifecycle"]["preStop"]["sleep"]["seconds"]);
        let needed = before + BEFORE_DRAIN + settings.shutdown.drain + MARGIN;
        assert!(given >= needed, "{name}: {given:?} to stop, {needed:?} needed");
        assert_eq!(rendered.one("StatefulSet", "tidegate")["spec"]["replicas"], 1, "{name}");

        // What is mounted is what the configuration and the command line read.
        let mounts = container["volumeMounts"].as_array().expect("mounts");
        let mounted: Vec<&str> =
            mounts.iter().filter_map(|mount| mount["mountPath"].as_str()).collect();
        assert_eq!(container["args"], json!(["run", "-c", "/etc/tidegate"]), "{name}");
        for path in ["/data", "/etc/tidegate", MOUNT, "/tmp"] {
            assert!(mounted.contains(&path), "{name}: nothing is mounted at {path}");
        }
        assert!(mounts.iter().all(|mount| mount.get("subPath").is_none()), "{name}");
        assert!(settings.queue.sqlite.path.starts_with("/data"), "{name}");
        let volume = &rendered.one("StatefulSet", "tidegate")["spec"]["volumeClaimTemplates"][0];
        let storage = volume["spec"]["resources"]["requests"]["storage"].as_str().expect("a size");
        let gib: u64 = storage.strip_suffix("Gi").expect("in Gi").parse().expect("a number");
        // Live data, a quarter of it for history, and the log of a checkpoint that waits.
        assert!(gib << 30 >= settings.queue.max_size * 2, "{name}: {storage} is too small");
    }
}

#[tokio::test]
async fn every_name_in_the_manifests_is_the_name_of_something() {
    for name in ALL {
        let rendered = Rendered::of(name).await;
        let pods: Vec<&Value> = rendered
            .0
            .iter()
            .filter(|d| d["kind"] == "StatefulSet" || d["kind"] == "Deployment")
            .map(|workload| &workload["spec"]["template"])
            .collect();
        for workload in rendered.0.iter().filter(|d| d["spec"]["template"].is_object()) {
            let labels = &workload["spec"]["template"]["metadata"]["labels"];
            assert!(selects(&workload["spec"]["selector"]["matchLabels"], labels), "{name}");
        }
        for service in rendered.all("Service") {
            let (spec, about) = (&service["spec"], &service["metadata"]["name"]);
            let chosen: Vec<&&Value> = pods
                .iter()
                .filter(|pod| selects(&spec["selector"], &pod["metadata"]["labels"]))
                .collect();
            assert_eq!(chosen.len(), 1, "{name}: {about}");
            let ports = names_of(&chosen[0]["spec"]["containers"][0]["ports"]);
            for port in spec["ports"].as_array().expect("ports") {
                let target = port["targetPort"].as_str().expect("a name");
                assert!(ports.contains(&target), "{name}: {about}: {target}");
            }
        }
        let public = rendered.one("Service", "tidegate");
        assert_eq!(names_of(&public["spec"]["ports"]), ["webhooks"], "{name}: admin is public");
        let set = &rendered.one("StatefulSet", "tidegate")["spec"];
        let headless = rendered.one("Service", set["serviceName"].as_str().expect("a name"));
        assert_eq!(headless["spec"]["clusterIP"], "None", "{name}");
        let account = rendered.pod()["serviceAccountName"].as_str().expect("a name");
        rendered.one("ServiceAccount", account);
        let budget = rendered.one("PodDisruptionBudget", "tidegate");
        let labels = &set["template"]["metadata"]["labels"];
        assert!(selects(&budget["spec"]["selector"]["matchLabels"], labels), "{name}");
        for policy in rendered.all("NetworkPolicy") {
            assert!(selects(&policy["spec"]["podSelector"]["matchLabels"], labels), "{name}");
        }
        for monitor in rendered.all("ServiceMonitor") {
            let wanted = &monitor["spec"]["selector"]["matchLabels"];
            let chosen: Vec<&Value> = rendered
                .all("Service")
                .filter(|s| selects(wanted, &s["metadata"]["labels"]))
                .collect();
            assert_eq!(chosen, [headless], "{name}: scraped through one Service");
            let endpoint = &monitor["spec"]["endpoints"][0];
            let port = endpoint["port"].as_str().expect("a name");
            assert!(names_of(&headless["spec"]["ports"]).contains(&port), "{name}");
            let key = endpoint["authorization"]["credentials"]["key"].as_str().expect("a key");
            assert!(rendered.secrets().contains(key), "{name}: {key}");
        }
        for ingress in rendered.all("Ingress") {
            let path = &ingress["spec"]["rules"][0]["http"]["paths"][0];
            let service = &path["backend"]["service"];
            let to = rendered.one("Service", service["name"].as_str().expect("a name"));
            let port = service["port"]["name"].as_str().expect("a name");
            assert!(names_of(&to["spec"]["ports"]).contains(&port), "{name}");
        }
    }
}

#[tokio::test]
async fn the_operators_page_makes_every_secret_that_production_reads() {
    let rendered = Rendered::of("production").await;
    let page = text("deploy/README.md");
    for secret in rendered.secrets() {
        assert!(page.contains(&format!("--from-file={secret}")), "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dev_overlay_plays_its_story_from_the_image_and_takes_up_a_swapped_config_map() {
    let rendered = Rendered::of("dev").await;
    let files = rendered.files();
    let mock = Files::new(&rendered.one("ConfigMap", "mock-api")["data"]);
    let mut jail = Jail::new(&[
        (&files.config(), "/etc/tidegate"),
        (&files.secrets(), MOUNT),
        (&mock.config(), "/etc/mock"),
    ])
    .await;
    let container = rendered.container();
    // The Service's port, on to the container's.
    let passed_on = format!(
        "{}={}",
        rendered.one("Service", "tidegate")["spec"]["ports"][0]["port"],
        container["ports"][0]["containerPort"]
    );
    jail.join("mock-api,tidegate", &[&passed_on]).await;
    let arguments = |args: &Value| -> Vec<String> {
        let words = args.as_array().expect("arguments").iter();
        words.map(|word| word.as_str().expect("text").to_owned()).collect()
    };
    let mock_container =
        &rendered.one("Deployment", "mock-api")["spec"]["template"]["spec"]["containers"][0];
    let mock_arguments = arguments(&mock_container["args"]);
    let mock_arguments: Vec<&str> = mock_arguments.iter().map(String::as_str).collect();
    let mut mock_api = jail.command(&mock_arguments).spawn().expect("it starts");
    let gateway_arguments = arguments(&container["args"]);
    let gateway_arguments: Vec<&str> = gateway_arguments.iter().map(String::as_str).collect();
    let checked = jail.run(&["check", "-c", "/etc/tidegate"]).await;
    assert_eq!(checked.status.code(), Some(0), "{}", String::from_utf8_lossy(&checked.stderr));
    let mut gateway = jail.command(&gateway_arguments).spawn().expect("it starts");

    // Probes: without a token, where the manifests look.
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let path = container[probe]["httpGet"]["path"].as_str().expect("a path");
        let url = format!("http://127.0.0.1:9090{path}");
        let jail = &jail;
        eventually(probe, IN_TIME, || async {
            (jail.get(&url, None).await.0 == 200).then_some(())
        })
        .await;
    }
    assert_eq!(jail.run(&["healthcheck"]).await.status.code(), Some(0));
    let metrics = "http://127.0.0.1:9090/metrics";
    assert_eq!(jail.get(metrics, None).await.0, 401);
    let token = std::fs::read_to_string(files.secrets().join("metrics-token")).expect("text");
    assert_eq!(jail.get(metrics, Some(&token)).await.0, 200);

    // An order goes out by a name, and its webhook comes back by another.
    let operator = std::fs::read_to_string(files.secrets().join("admin-token")).expect("text");
    let verb = |arguments: &[&str]| {
        let mut verb = jail.command(arguments);
        verb.env("TIDEGATE_ADMIN_TOKEN", &operator);
        verb
    };
    let data = r#"{"customerId": "c1", "total": 42}"#;
    let emit = ["emit", "order.confirmed", "--exchange", "orders", "--data", data];
    let emitted = verb(&emit).output().await.expect("it runs");
    assert!(emitted.status.success(), "{}", String::from_utf8_lossy(&emitted.stderr));
    for route in ["award-points", "loyalty-webhooks", "loyalty-log"] {
        let list = ["deliveries", "--route", route, "--state", "delivered", "--json"];
        eventually(route, IN_TIME, || async {
            let output = verb(&list).output().await.expect("it runs");
            String::from_utf8_lossy(&output.stdout).contains("event_id").then_some(())
        })
        .await;
    }

    // Another route in the ConfigMap, and no restart.
    let mut data = rendered.one("ConfigMap", "tidegate")["data"].clone();
    let routes = data["routes.yaml"].as_str().expect("text");
    data["routes.yaml"] = routes.replace("  loyalty-log:", "  loyalty-journal:").into();
    files.swap(&data);
    eventually("the new route", IN_TIME, || async {
        let output = verb(&["routes", "--json"]).output().await.expect("it runs");
        String::from_utf8_lossy(&output.stdout).contains("loyalty-journal").then_some(())
    })
    .await;

    signal(gateway.id().expect("running"), "-TERM").await;
    let given = seconds(&rendered.pod()["terminationGracePeriodSeconds"]);
    let status = tokio::time::timeout(given, gateway.wait()).await.expect("in time").expect("ours");
    assert_eq!(status.code(), Some(0));
    mock_api.kill().await.expect("ours");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_compose_project_starts_from_the_image_before_rabbitmq_does() {
    let (config, secrets) = (file("deploy/compose/gateway"), file("deploy/compose/secrets"));
    let mock = file("deploy/compose/mock");
    let mounts: [(&Path, &str); 3] =
        [(&config, "/etc/tidegate"), (&secrets, "/run/secrets"), (&mock, "/etc/mock")];
    let mut jail = Jail::new(&mounts).await;
    jail.join("mock-api,gateway", &[]).await;
    let checked = jail.run(&["check", "-c", "/etc/tidegate"]).await;
    assert_eq!(checked.status.code(), Some(0), "{}", String::from_utf8_lossy(&checked.stderr));
    let mut mock_api =
        jail.command(&["mock", "-c", "/etc/mock/mock-api.yaml"]).spawn().expect("ok");
    let mut gateway = jail.command(&["run", "-c", "/etc/tidegate"]).spawn().expect("it starts");
    eventually("it is healthy", IN_TIME, || async {
        (jail.run(&["healthcheck"]).await.status.code() == Some(0)).then_some(())
    })
    .await;
    eventually("the mock API answers", IN_TIME, || async {
        let url = "http://127.0.0.1:9102/_mock/requests";
        (jail.get(url, None).await.0 == 200).then_some(())
    })
    .await;
    signal(gateway.id().expect("running"), "-TERM").await;
    let status = tokio::time::timeout(Duration::from_secs(40), gateway.wait()).await;
    assert_eq!(status.expect("within stop_grace_period").expect("ours").code(), Some(0));
    mock_api.kill().await.expect("ours");

    let compose = text("deploy/compose.yaml");
    for line in ["stop_grace_period: 40s", "127.0.0.1:8080:8080", "127.0.0.1:9090:9090"] {
        assert!(compose.contains(line), "{line}");
    }
    let url = std::fs::read_to_string(secrets.join("rabbitmq-url")).expect("text");
    let user = std::fs::read_to_string(secrets.join("rabbitmq.conf")).expect("text");
    let password = user.lines().find_map(|line| line.strip_prefix("default_pass = "));
    assert!(url.contains(&format!("tidegate:{}@rabbitmq", password.expect("a password"))));
}
