//! strace: a running gateway's system calls made to fail, to take long, or to be its last.
//!
//! `-P` keeps to the calls that concern one path, and injections count for each thread and each
//! system call by itself: "the 3rd `pwrite64`" is the 3rd of whichever thread gets there first.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// How long it may take to attach, or to let go.
const IN_TIME: Duration = Duration::from_secs(20);

/// Attached to every thread of a process; ends when dropped, and the process goes on as it was.
pub struct Strace {
    child: Child,
}

impl Strace {
    /// Attaches to `pid` with `injection`, as `-e inject=` has it: `fdatasync:error=EIO:when=1`;
    /// of the calls that concern `paths`, or of all when there are none.
    pub async fn attach(pid: u32, injection: &str, paths: &[PathBuf]) -> Self {
        let calls = injection.split(':').next().expect("calls first");
        let mut command = Command::new(program());
        command.args(["-f", "-o", "/dev/null", "-p", &pid.to_string()]).args([
            "-e",
            &format!("trace={calls}"),
            "-e",
            &format!("inject={injection}"),
        ]);
        for path in paths {
            command.arg("-P").arg(path);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("strace");
        let mut lines = BufReader::new(child.stderr.take().expect("piped above")).lines();
        let attached = async {
            let mut said = String::new();
            while let Ok(Some(line)) = lines.next_line().await {
                if line.contains(" attached") {
                    return;
                }
                said.push_str(&line);
            }
            panic!("strace did not attach: {said}");
        };
        timeout(IN_TIME, attached).await.expect("it attaches in time");
        // Its later words are about threads that come and go; it must not wait for a reader.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { child }
    }

    /// Lets go of the process, which goes on; or notices that it has gone.
    pub async fn detach(mut self) {
        if let Some(pid) = self.child.id() {
            // It may have ended with the process: then there is nobody to tell.
            let _ = Command::new("kill").args(["-INT", &pid.to_string()]).status().await;
        }
        timeout(IN_TIME, self.child.wait()).await.expect("in time").expect("its status");
    }
}

/// What a command is put behind so that its calls are written to `log` as the recorder of
/// [`crate::power`] reads them: the process keeps its id, and strace is none of its relatives.
#[must_use]
pub fn recorder(log: &Path, calls: &str) -> Vec<String> {
    let mut words = vec![program().to_owned()];
    words.extend(["-D", "-f", "--seccomp-bpf", "-xx", "-y", "-s", "70000"].map(str::to_owned));
    words.extend(["-e".to_owned(), format!("trace={calls}"), "-e".to_owned()]);
    words.extend(["signal=none".to_owned(), "-o".to_owned(), log.display().to_string()]);
    words
}

/// What a command is put behind so that one of its own calls is its last.
#[must_use]
pub fn injector(injection: &str, paths: &[PathBuf]) -> Vec<String> {
    let calls = injection.split(':').next().expect("calls first");
    let mut words = vec![program().to_owned()];
    words.extend(["-D", "-f", "-o", "/dev/null", "-e"].map(str::to_owned));
    words.extend([format!("trace={calls}"), "-e".to_owned(), format!("inject={injection}")]);
    for path in paths {
        words.extend(["-P".to_owned(), path.display().to_string()]);
    }
    words
}

fn program() -> &'static str {
    let found = ["/usr/bin/strace", "/usr/local/bin/strace", "/bin/strace"];
    let found = found.into_iter().find(|path| Path::new(path).is_file());
    found.expect("strace is not installed: run tests/install-fault-tools.sh")
}
