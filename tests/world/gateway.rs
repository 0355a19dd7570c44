//! The gateway under test: the real binary, as a process.

mod binary;

use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, OnceLock},
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::watch,
    time::timeout,
};

pub use binary::binary;

use crate::{eventually, process};

/// How long a gateway may take from start to ready.
const START: Duration = Duration::from_secs(20);

/// A gateway: a folder with its configuration and its queue, and, while it runs, its process.
pub struct Gateway {
    folder: TempDir,
    process: Option<Process>,
    environment: Vec<(String, String)>,
    config: Option<PathBuf>,
    watched: bool,
    disk: Option<&'static str>,
    names: bool,
    behind: Vec<String>,
    log: Arc<Mutex<String>>,
}

struct Process {
    child: Child,
    admin: watch::Receiver<Option<String>>,
    webhooks: watch::Receiver<Option<String>>,
}

impl Gateway {
    /// Configured with `yaml`, not running. Admin listener and queue file are filled in.
    #[must_use]
    pub fn new(yaml: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("gateway.yaml"), yaml).expect("writable");
        Self {
            folder,
            process: None,
            environment: Vec::new(),
            config: None,
            watched: false,
            disk: None,
            names: false,
            behind: Vec::new(),
            log: Arc::default(),
        }
    }

    /// Configured with `yaml` and running.
    pub async fn start(yaml: &str) -> Self {
        let mut gateway = Self::new(yaml);
        gateway.run().await;
        gateway
    }

    /// Sets an environment variable of its next start.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.environment.push((name.to_owned(), value.into()));
    }

    /// Reads its configuration from `path` instead of its own file, and watches it. Otherwise it
    /// reloads only when it is asked to: a test knows when.
    pub fn set_config(&mut self, path: &Path) {
        self.config = Some(path.to_owned());
        self.watched = true;
    }

    /// Gives its queue a disk of its own, of `size` (`48m`), in memory and in a mount namespace of
    /// the process: what others see is not changed.
    pub fn set_disk(&mut self, size: &'static str) {
        std::fs::create_dir(self.folder.path().join("queue")).expect("writable");
        self.disk = Some(size);
    }

    /// Lets it know the names in `hosts` alone, lines as in `/etc/hosts`, and no name server, in a
    /// mount namespace of the process. Told again, it knows others from then on.
    pub fn set_names(&mut self, hosts: &str) {
        let write = |file: &str, text: &str| {
            std::fs::write(self.folder.path().join(file), text).expect("writable");
        };
        write("hosts", hosts);
        if !self.names {
            // Nobody listens there: whoever is asked for a name says at once that he is not.
            write("resolv.conf", "nameserver 127.53.53.53\noptions attempts:1\n");
            write("nsswitch.conf", "hosts: files dns\n");
            self.names = true;
        }
    }

    /// Puts `words`, a command that keeps the process id of what it runs, before its binary.
    pub fn set_behind(&mut self, words: Vec<String>) {
        self.behind = words;
    }

    /// Starts it and waits until it is ready.
    pub async fn run(&mut self) {
        self.spawn();
        let ready = eventually("the gateway is ready", START, || async {
            let url = format!("{}/readyz", self.admin().await);
            client().get(&url).send().await.ok().filter(|answer| answer.status().is_success())
        });
        ready.await;
    }

    /// Starts it and waits for nothing.
    pub fn spawn(&mut self) {
        let mut child = self.command("run").stderr(Stdio::piped()).spawn().expect("the binary");
        let (tell_admin, admin) = watch::channel(None);
        let (tell_webhooks, webhooks) = watch::channel(None);
        let mut lines = BufReader::new(child.stderr.take().expect("piped above")).lines();
        let log = Arc::clone(&self.log);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(address) = address(&line, "admin listening") {
                    tell_admin.send_replace(Some(format!("http://{address}")));
                }
                if let Some(address) = address(&line, "webhooks listening") {
                    tell_webhooks.send_replace(Some(format!("http://{address}")));
                }
                let mut log = log.lock();
                log.push_str(&line);
                log.push('\n');
            }
        });
        self.process = Some(Process { child, admin, webhooks });
    }

    /// Runs a verb of the command line beside it, to its end.
    pub async fn verb(&self, arguments: &[&str]) -> std::process::Output {
        let admin = self.admin().await;
        let output = Command::new(binary())
            .args(arguments)
            .env("TIDEGATE_ADMIN", admin)
            .stdin(Stdio::null())
            .output();
        timeout(Duration::from_secs(20), output).await.expect("in time").expect("the binary")
    }

    /// `http://…` of its admin listener, once it has said so.
    pub async fn admin(&self) -> String {
        self.said(self.process.as_ref().expect("running").admin.clone()).await
    }

    /// `http://…` of its public listener, once it has said so.
    pub async fn webhooks(&self) -> String {
        self.said(self.process.as_ref().expect("running").webhooks.clone()).await
    }

    async fn said(&self, mut url: watch::Receiver<Option<String>>) -> String {
        let said = timeout(START, url.wait_for(Option::is_some)).await;
        let log = || self.log.lock().clone();
        let said = said.unwrap_or_else(|_| panic!("it never said where it listens:\n{}", log()));
        let url = said.unwrap_or_else(|_| panic!("it ended:\n{}", log())).clone();
        url.expect("waited for it")
    }

    /// GETs `path` of the admin listener as JSON.
    pub async fn get(&self, path: &str) -> Value {
        let url = format!("{}{path}", self.admin().await);
        let answer = client().get(&url).send().await.expect("the admin listener answers");
        let text = answer.text().await.expect("a body");
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("GET {path}: {text}"))
    }

    /// POSTs `body` to `path` of the admin listener; the status and what it says.
    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.post_within(path, body, Duration::from_secs(20)).await
    }

    /// The same, for what may take minutes.
    pub async fn post_slowly(&self, path: &str, body: &Value) -> (u16, Value) {
        self.post_within(path, body, Duration::from_secs(400)).await
    }

    async fn post_within(&self, path: &str, body: &Value, within: Duration) -> (u16, Value) {
        let url = format!("{}{path}", self.admin().await);
        let answer = client()
            .post(&url)
            .timeout(within)
            .header("Content-Type", "application/json")
            .body(body.to_string())
            .send()
            .await
            .expect("the admin listener answers");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        let said = serde_json::from_str(&text).unwrap_or_else(|_| panic!("POST {path}: {text}"));
        (status, said)
    }

    /// GETs `path` of the admin listener as text.
    pub async fn text(&self, path: &str) -> String {
        let url = format!("{}{path}", self.admin().await);
        client().get(&url).send().await.expect("an answer").text().await.expect("a body")
    }

    /// How many deliveries of `route` are in `state`.
    pub async fn count(&self, route: &str, state: &str) -> u64 {
        let status = self.get(&format!("/api/v1/routes/{route}")).await;
        status["counts"][state].as_u64().unwrap_or_else(|| panic!("no {state} in {status}"))
    }

    /// Everything it has logged since its first start.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().clone()
    }

    /// Its configuration and queue.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().and_then(|process| process.child.id()).expect("running")
    }

    /// Whether its process has ended, by itself or by a signal.
    #[must_use]
    pub fn ended(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        // The name, in parentheses, may hold anything; the state follows it.
        let stat = stat.unwrap_or_default();
        let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
        state.is_none_or(|state| state == "Z" || state == "X")
    }

    /// Where its queue lies.
    #[must_use]
    pub fn queue(&self) -> PathBuf {
        self.folder.path().join("queue/tidegate.db")
    }

    /// The most memory that was resident since its start, in bytes.
    #[must_use]
    pub fn peak_memory(&self) -> u64 {
        process::peak(self.pid())
    }

    /// `kill -9`, and waits until it is gone.
    pub async fn kill(&mut self) {
        let mut process = self.process.take().expect("running");
        process.child.kill().await.expect("ours to kill");
    }

    /// SIGTERM, and its exit status.
    pub async fn stop(&mut self) -> ExitStatus {
        process::signal(self.pid(), "-TERM").await;
        self.exit().await
    }

    /// Waits until it has ended, and says how.
    pub async fn exit(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("running");
        timeout(Duration::from_secs(40), process.child.wait())
            .await
            .expect("it stops in time")
            .expect("its status")
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = match (self.disk, self.behind.split_first()) {
            (None, None) if self.names => self.with_names(),
            (None, None) => Command::new(binary()),
            (Some(size), _) => self.on_disk(size),
            (None, Some((first, rest))) => {
                let mut command = Command::new(first);
                command.args(rest).arg(binary());
                command
            }
        };
        command
            .arg(verb)
            .arg("-c")
            .arg(self.config.clone().unwrap_or_else(|| self.folder.path().join("gateway.yaml")))
            .env("TIDEGATE__ADMIN__LISTEN", "127.0.0.1:0")
            .env("TIDEGATE__SERVER__LISTEN", "127.0.0.1:0")
            .env("TIDEGATE__QUEUE__SQLITE__PATH", self.queue())
            .env("TIDEGATE__LOG__FORMAT", "json")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        if verb == "run" && !self.watched {
            command.arg("--no-watch");
        }
        command
    }
}

impl Gateway {
    /// The binary behind a mount; it keeps the process id.
    fn on_disk(&self, size: &str) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["--map-root-user", "--mount", "sh", "-c"])
            .arg("mount -t tmpfs -o size=\"$1\" tmpfs \"$2\" && shift 2 && exec \"$@\"")
            .args(["sh", size])
            .arg(self.folder.path().join("queue"))
            .arg(binary());
        command
    }

    /// The binary behind mounts; it keeps the process id.
    fn with_names(&self) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["--map-root-user", "--mount", "sh", "-c"])
            .arg(
                "for name in hosts resolv.conf nsswitch.conf; do
                     mount --bind \"$1/$name\" \"$(readlink -f /etc/$name)\" || exit
                 done
                 shift && exec \"$@\"",
            )
            .arg("sh")
            .arg(self.folder.path())
            .arg(binary());
        command
    }
}

/// An HTTP client that takes nothing from the environment.
#[must_use]
pub fn client() -> reqwest::Client {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    let build = || {
        // Already installed by another part of the process: just as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .timeout(Duration::from_secs(20))
            .build()
            .expect("a client")
    };
    CLIENT.get_or_init(build).clone()
}

/// The address in the log line that says where a listener is.
pub(crate) fn address(line: &str, listener: &str) -> Option<String> {
    let entry: Value = serde_json::from_str(line).ok()?;
    let fields = entry.get("fields").unwrap_or(&entry);
    if fields.get("message")?.as_str()? != listener {
        return None;
    }
    Some(fields.get("address")?.as_str()?.to_owned())
}
