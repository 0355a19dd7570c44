//! The container image, without an engine: its file system as `deploy/rootfs.sh` makes it, started
//! as the Dockerfile says, as its user, with a read-only root, in a mount namespace.
//!
//! What an engine would mount is there and nothing else: `/etc/hosts`, configuration, secrets,
//! `/data`, the one place that can be written to, and the devices that every engine must supply
//! (OCI runtime specification, "Default Devices"). Not even `/proc`. The network is the test's own.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::{Arc, OnceLock},
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::{eventually, gateway::address};

/// How long a container may take to say where it listens, or to end.
const IN_TIME: Duration = Duration::from_secs(60);

/// In a mount namespace: the root, then what runs in it. Real root becomes the image's user; who is
/// root only in a user namespace becomes it in one more.
const START: &str = r#"
image=$1 root=$2 mounted=$3 user=$4 real=$5
shift 5
mount -t tmpfs -o mode=0755 tmpfs "$root" &&
cp -R --preserve=mode,ownership "$image/." "$root" &&
cp -R "$mounted/." "$root" &&
mkdir "$root/dev" || exit 125
for device in null zero full random urandom; do
    : >"$root/dev/$device" && mount --bind "/dev/$device" "$root/dev/$device" || exit 125
done
if [ "$real" = 0 ]; then
    mount -t tmpfs -o mode=0750,uid="$user",gid="$user" tmpfs "$root/data" &&
    mount -o remount,bind,ro "$root" || exit 125
    exec chroot --userspec="$user:$user" --groups= "$root" "$@"
else
    mount -t tmpfs -o mode=0750 tmpfs "$root/data" &&
    mount -o remount,bind,ro "$root" || exit 125
    exec unshare --map-user="$user" --map-group="$user" --root="$root" "$@"
fi
"#;

/// The image: its file system, and what the Dockerfile says of it.
#[derive(Debug)]
pub struct Image {
    root: PathBuf,
    dockerfile: String,
}

impl Image {
    /// The image with a binary of the profile `dev`, made once per test run.
    pub fn get() -> &'static Self {
        static MADE: OnceLock<Image> = OnceLock::new();
        MADE.get_or_init(Self::make)
    }

    fn make() -> Self {
        let root = repository().join("target/static/rootfs");
        let mut make = std::process::Command::new(repository().join("deploy/rootfs.sh"));
        make.arg("dev").arg(&root).stdin(Stdio::null());
        // What the outer cargo tells its tests would make the inner one build everything anew.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("CARGO_")) {
                make.env_remove(name);
            }
        }
        assert!(make.status().expect("a shell").success(), "there is no root file system");
        let dockerfile = repository().join("deploy/Dockerfile");
        Self { root, dockerfile: std::fs::read_to_string(dockerfile).expect("it is there") }
    }

    /// Where its file system lies.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What follows `instruction` in the Dockerfile, the last time.
    #[must_use]
    pub fn instruction(&self, instruction: &str) -> &str {
        let lines = self.dockerfile.lines().rev();
        let mut found = lines.filter_map(|line| line.strip_prefix(instruction)?.strip_prefix(' '));
        found.next().unwrap_or_else(|| panic!("the Dockerfile has no {instruction}"))
    }

    /// The same, a list in JSON.
    #[must_use]
    pub fn words(&self, instruction: &str) -> Vec<String> {
        serde_json::from_str(self.instruction(instruction)).expect("a list of words")
    }

    /// Its user; the group has the same number.
    #[must_use]
    pub fn user(&self) -> u32 {
        let (user, group) = self.instruction("USER").split_once(':').expect("USER:GROUP");
        assert_eq!(user, group);
        user.parse().expect("a number, for runAsNonRoot")
    }
}

/// A container of the image: what is mounted into it, and, while it runs, its process.
#[derive(Debug)]
pub struct Container {
    image: &'static Image,
    folder: TempDir,
    environment: Vec<(String, String)>,
    child: Option<Child>,
    log: Arc<Mutex<String>>,
}

impl Container {
    /// Not running, with nothing mounted but the names every host knows.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("root")).expect("writable");
        let container = Self {
            image: Image::get(),
            folder,
            environment: Vec::new(),
            child: None,
            log: Arc::default(),
        };
        container.mount("/etc/hosts", "127.0.0.1 localhost\n");
        container
    }

    /// Puts a file with `text` at `path` of its file system.
    pub fn mount(&self, path: &str, text: &str) {
        let path = self.folder.path().join("mounted").join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().expect("an absolute path")).expect("writable");
        std::fs::write(path, text).expect("writable");
    }

    /// Sets an environment variable of what is started next.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.environment.push((name.to_owned(), value.into()));
    }

    /// Starts what the image starts by itself, and waits for nothing.
    pub fn start(&mut self) {
        let words = self.image.words("CMD");
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut child = self.command(&words).stderr(Stdio::piped()).spawn().expect("unshare(1)");
        let mut lines = BufReader::new(child.stderr.take().expect("piped above")).lines();
        let log = Arc::clone(&self.log);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let mut log = log.lock();
                log.push_str(&line);
                log.push('\n');
            }
        });
        self.child = Some(child);
    }

    /// Runs the binary with `arguments` instead, to its end.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output();
        timeout(IN_TIME, output).await.expect("in time").expect("unshare(1)")
    }

    /// `http://…` of the listener whose log line is `message`, once it has said so.
    pub async fn listener(&self, message: &str) -> String {
        eventually(&format!("it says `{message}`"), IN_TIME, || async {
            let log = self.log();
            let found = log.lines().find_map(|line| address(line, message));
            found.map(|address| format!("http://{address}"))
        })
        .await
    }

    /// Everything it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().clone()
    }

    /// Its process id, in the test's own namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().and_then(Child::id).expect("running")
    }

    /// SIGTERM, and its exit code.
    pub async fn stop(&mut self) -> Option<i32> {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().await.expect("kill(1)");
        assert!(sent.success());
        let mut child = self.child.take().expect("running");
        timeout(IN_TIME, child.wait()).await.expect("it stops in time").expect("its status").code()
    }

    /// The image's entry point with `arguments`, as the image's user in its file system. It keeps
    /// the process id.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        let real = is_root();
        if !real {
            command.arg("--map-root-user");
        }
        let (name, value) = self.image.instruction("ENV").split_once('=').expect("NAME=VALUE");
        command
            .args(["--mount", "sh", "-c", START, "sh"])
            .arg(self.image.root())
            .arg(self.folder.path().join("root"))
            .arg(self.folder.path().join("mounted"))
            .arg(self.image.user().to_string())
            .arg(if real { "0" } else { "1" })
            .args(self.image.words("ENTRYPOINT"))
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env(name, value)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

impl Default for Container {
    fn default() -> Self {
        Self::new()
    }
}

/// Every document of the YAML in `text`.
#[must_use]
pub fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The repository's root.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository")
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).expect("it has one");
    uids.split_whitespace().next() == Some("0")
}
