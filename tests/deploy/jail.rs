//! The image without a container engine: its file system as the root of a process, read-only, in
//! mount and network namespaces of its own, as the image's user.

use std::{
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use super::{PYTHON, file, image};

/// The image's user.
pub(crate) const USER: u32 = 65_532;

/// Where Services and other pods are, within a jail.
pub(crate) const CLUSTER: &str = "10.99.0.1";

const IN_TIME: Duration = Duration::from_secs(60);

/// Mounts what stands in its arguments, FROM TO FROM TO, into the root, and makes the root
/// read-only; what is mounted stays as it is.
const SET_UP: &str = "\
set -eu
root=$1
mount --bind \"$root\" \"$root\"
shift
while [ $# -ge 2 ]; do
    mount --bind \"$1\" \"$root$2\"
    shift 2
done
mount -o remount,bind,ro \"$root\"
echo up
exec sleep 3600";

/// A container, as it were: files and namespaces. What runs in it is started by [`Jail::command`].
pub(crate) struct Jail {
    folder: TempDir,
    holder: Child,
    cluster: Option<Child>,
}

impl Jail {
    /// The image with `mounts` (from a folder of ours to a path of its) besides `/data`, `/tmp` and
    /// a resolver that asks the jail's own name server.
    pub(crate) async fn new(mounts: &[(&Path, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // Others must get through it: the image's user is not who runs the tests.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))
            .expect("ours");
        let root = folder.path().join("root");
        image::lay_out(&root).await;
        let mut arguments: Vec<(PathBuf, String)> = Vec::new();
        for name in ["data", "tmp"] {
            let own = folder.path().join(name);
            std::fs::create_dir(&own).expect("new");
            if as_root() {
                chown(&own, Some(USER), Some(USER)).expect("as root");
            }
            arguments.push((own, format!("/{name}")));
        }
        // A runtime brings devices, and makes the places it mounts to.
        std::fs::create_dir(root.join("dev")).expect("writable");
        for device in ["/dev/null", "/dev/random", "/dev/urandom"] {
            std::fs::write(root.join(device.trim_start_matches('/')), "").expect("writable");
            arguments.push((device.into(), device.to_owned()));
        }
        let resolver = folder.path().join("resolv.conf");
        std::fs::write(&resolver, "nameserver 127.0.0.1\n").expect("writable");
        std::fs::write(root.join("etc/resolv.conf"), "").expect("writable");
        arguments.push((resolver, "/etc/resolv.conf".to_owned()));
        for (from, to) in mounts {
            let place = root.join(to.trim_start_matches('/'));
            if !place.exists() {
                std::fs::create_dir_all(place).expect("writable");
            }
            arguments.push((from.to_path_buf(), (*to).to_owned()));
        }
        let mut holder = Command::new("unshare");
        if !as_root() {
            holder.arg("--map-root-user");
        }
        holder.args(["--mount", "--net", "sh", "-c", SET_UP, "sh"]).arg(&root);
        for (from, to) in &arguments {
            holder.arg(from).arg(to);
        }
        let holder = until_up(holder).await;
        Self { folder, holder, cluster: None }
    }

    /// Other pods by their `names`, all at one address; each of `ports` (`80=8080`) is passed on to
    /// a port within the jail.
    pub(crate) async fn join(&mut self, names: &str, ports: &[&str]) {
        let mut serve = self.enter();
        serve.arg(file(PYTHON)).arg(file("tests/deploy/cluster.py"));
        serve.args(["serve", CLUSTER, names]).args(ports);
        self.cluster = Some(until_up(serve).await);
    }

    /// `GET url` from within, as a probe would: status and body.
    pub(crate) async fn get(&self, url: &str, token: Option<&str>) -> (u64, String) {
        let mut get = self.enter();
        get.arg(file(PYTHON)).arg(file("tests/deploy/cluster.py")).args(["get", url]).args(token);
        let output = get.output().await.expect("python");
        let answer: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        let body = answer["body"].as_str().expect("text").to_owned();
        (answer["status"].as_u64().expect("a status"), body)
    }

    /// The image's entry point with `arguments`, as the image's user.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let root = self.folder.path().join("root");
        let mut command = self.enter();
        if as_root() {
            command.args(["chroot", &format!("--userspec={USER}:{USER}")]).arg(root);
        } else {
            command.args(["unshare", "--user", &format!("--map-user={USER}")]);
            command.arg(format!("--map-group={USER}")).arg("--root").arg(root).args(["--wd", "/"]);
        }
        command.arg("/tidegate").args(arguments);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    /// Runs the entry point to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output();
        timeout(IN_TIME, output).await.expect("in time").expect("it runs")
    }

    fn enter(&self) -> Command {
        let pid = self.holder.id().expect("running").to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid, "--mount", "--net"]);
        if !as_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg("--").kill_on_drop(true).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// Whether the tests may do everything; else they make a user namespace to do it in.
pub(crate) fn as_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// Starts `command` and waits until it says "up".
async fn until_up(mut command: Command) -> Child {
    command.kill_on_drop(true).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let line = timeout(IN_TIME, lines.next_line()).await.expect("in time").expect("text");
    if line.as_deref() != Some("up") {
        let mut said = String::new();
        let stderr = child.stderr.as_mut().expect("piped");
        let _ = stderr.read_to_string(&mut said).await;
        panic!("it is not up: {said}");
    }
    child
}
