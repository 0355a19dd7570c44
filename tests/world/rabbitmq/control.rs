//! The outside of a node: how it is started, and how its Erlang side is asked.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use serde_json::Value;
use tokio::time::timeout;

/// How long one request to the node's Erlang side may take.
const CONTROL: Duration = Duration::from_secs(60);

/// Stands between the test and the node. `$1` is the node's server script, `$2` its folder.
/// Erlang's own helper processes end by themselves when the node is gone.
const WATCHDOG: &str = r#"
trap '' HUP INT TERM
setsid sh -c 'epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 & exec "$0"' "$1" \
    </dev/null >>"$2/output" 2>&1 &
session=$!
read -r word
kill -s KILL -- "-$session"
wait
[ "$word" = keep ] || rm -rf "$2"
"#;

/// Evaluates `$EXPRESSION` on the node `$NODE` and prints its value as JSON.
const EVALUATE: &str = r#"
    Node = list_to_atom(os:getenv("NODE")),
    {ok, Tokens, _} = erl_scan:string(os:getenv("EXPRESSION")),
    {ok, Forms} = erl_parse:parse_exprs(Tokens),
    Answer = case rpc:call(Node, erl_eval, exprs, [Forms, []], 50000) of
        {value, Value, _} -> rpc:call(Node, rabbit_json, encode, [Value], 5000);
        Other -> {failed, Other}
    end,
    case is_binary(Answer) of
        true -> io:put_chars(Answer), halt(0);
        false -> io:format("~0p", [Answer]), halt(1)
    end.
"#;

/// How to reach the Erlang side of a node.
pub(super) struct Control {
    pub(super) folder: PathBuf,
    pub(super) node: String,
    pub(super) amqp_port: u16,
    pub(super) epmd_port: u16,
    pub(super) distribution_port: u16,
}

impl Control {
    /// A folder with all that a node needs, and ports that nobody uses.
    pub(super) fn prepare() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // The watchdog removes it: it may outlive this process.
        let folder = tempfile::tempdir().expect("a temporary folder").keep();
        let write = |name: &str, text: &str| {
            std::fs::write(folder.join(name), text).expect("a file in our own folder");
        };
        write("enabled_plugins", "[].\n");
        // The free space of a small machine must not block the tests.
        write(
            "rabbitmq.conf",
            "disk_free_limit.absolute = 1KB\nvm_memory_high_watermark.relative = 0.6\n",
        );
        let [amqp_port, epmd_port, distribution_port] = free_ports();
        let node = format!("tidegate-{}-{count}@localhost", std::process::id());
        Self { folder, node, amqp_port, epmd_port, distribution_port }
    }

    pub(super) fn spawn(&self) -> Child {
        let folder = &self.folder;
        let path = |name: &str| folder.join(name);
        let mut watchdog = Command::new("sh");
        watchdog
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(server_script())
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .env("RABBITMQ_NODENAME", &self.node)
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", self.amqp_port.to_string())
            .env("RABBITMQ_DIST_PORT", self.distribution_port.to_string())
            .env("RABBITMQ_MNESIA_BASE", path("data"))
            .env("RABBITMQ_LOG_BASE", path("log"))
            .env("RABBITMQ_CONFIG_FILE", path("rabbitmq"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", path("advanced.config"))
            .env("RABBITMQ_CONF_ENV_FILE", path("none"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins"))
            .env("RABBITMQ_GENERATED_CONFIG_DIR", path("generated"))
            .env("RABBITMQ_PID_FILE", path("pid"))
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "+S 2:2 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
            );
        self.erlang(&mut watchdog);
        watchdog.spawn().expect("sh")
    }

    /// Name resolution, port mapper and cookie of our own.
    fn erlang(&self, command: &mut Command) {
        command
            .env("HOME", &self.folder)
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1");
    }

    pub(super) async fn eval(&self, expressions: &str) -> Value {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("control-{}-{count}@localhost", std::process::id());
        let mut command = Command::new("erl");
        command
            .args(["-noinput", "-hidden", "+S", "1:1", "+sbwt", "none", "-sname", &name])
            .args(["-kernel", "inet_dist_use_interface", "{127,0,0,1}"])
            .args(["-eval", EVALUATE])
            .env("NODE", &self.node)
            .env("EXPRESSION", expressions)
            .stdin(Stdio::null());
        self.erlang(&mut command);
        let output = tokio::process::Command::from(command).kill_on_drop(true).output();
        let output = timeout(CONTROL, output).await.expect("an answer in time").expect("erl");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{expressions}\n{text}");
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{expressions}\n{text}"))
    }
}

/// The server itself. The one of that name in Debian's PATH is a wrapper that changes user and
/// folders, so the known places come first.
fn server_script() -> PathBuf {
    let known = [
        "/usr/lib/rabbitmq/bin/rabbitmq-server",
        "/opt/rabbitmq/sbin/rabbitmq-server",
        "/opt/homebrew/opt/rabbitmq/sbin/rabbitmq-server",
    ];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|folder| folder.join("rabbitmq-server"));
    let mut all = known.iter().map(PathBuf::from).chain(in_path);
    all.find(|script| Path::is_file(script))
        .expect("rabbitmq-server is not installed: run tests/install-rabbitmq.sh")
}

/// Ports that are free now, held all at once, so that they differ. They are none that the system
/// gives to whoever asks for any, or one would be gone by the time that the node is there to take
/// it, or is back after it was killed.
fn free_ports<const N: usize>() -> [u16; N] {
    let held: [TcpListener; N] = std::array::from_fn(|_| {
        let some = std::iter::repeat_with(|| fastrand::u16(10_000..30_000)).take(1_000);
        some.flat_map(|port| TcpListener::bind(("127.0.0.1", port))).next().expect("a free port")
    });
    held.each_ref().map(|listener| listener.local_addr().expect("bound").port())
}
