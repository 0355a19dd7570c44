//! A RabbitMQ node of the tests' own.
//!
//! Everything of it is private: ports, node name, cookie, data, and epmd, the port mapper that all
//! Erlang nodes of a machine otherwise share. So it never meets a RabbitMQ that is already there,
//! and several test runs go on side by side.
//!
//! It leaves nothing behind, even when the test process is killed: the node runs in a session of
//! its own under a small shell that reads from a pipe whose other end the test process holds. When
//! that end closes, for whatever reason, the shell kills the session and removes the folder.

mod control;

use std::{
    process::Child,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use lapin::{Connection, ConnectionProperties};
use serde_json::Value;
use tokio::{sync::OnceCell, time::timeout};

use crate::eventually;
use control::Control;

/// How long a node may take to start, on a machine that is busy with other tests.
const START: Duration = Duration::from_secs(90);

/// A RabbitMQ node; ends when dropped.
pub struct Node {
    watchdog: Option<Child>,
    root: Vhost,
}

/// A virtual host: as good as a node of one's own to whoever does not break the node.
#[derive(Clone)]
pub struct Vhost {
    control: Arc<Control>,
    name: String,
}

/// What RabbitMQ says about a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    /// Its prefetch.
    pub prefetch: u64,
    /// Whether it is the one that is served, where only one is.
    pub active: bool,
}

impl Node {
    /// Starts one and waits until it can be used.
    pub async fn start() -> Self {
        let control = Arc::new(Control::prepare());
        let root = Vhost { control, name: "/".to_owned() };
        let mut node = Self { watchdog: None, root };
        node.restart().await;
        node
    }

    /// The one that all tests of this process share; each takes a [`Node::vhost`] of it.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Node> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// A fresh virtual host.
    pub async fn vhost(&self) -> Vhost {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.eval(&format!(
            "rabbit_vhost:add(<<\"{name}\">>, <<\"tests\">>), \
             rabbit_auth_backend_internal:set_permissions(<<\"guest\">>, <<\"{name}\">>, \
                 <<\".*\">>, <<\".*\">>, <<\".*\">>, <<\"tests\">>)."
        ))
        .await;
        Vhost { control: Arc::clone(&self.root.control), name }
    }

    /// `amqp://…` of its default virtual host.
    #[must_use]
    pub fn url(&self) -> String {
        self.root.url()
    }

    /// Its default virtual host.
    #[must_use]
    pub fn root(&self) -> &Vhost {
        &self.root
    }

    /// The process id of its Erlang machine.
    pub async fn pid(&self) -> u32 {
        let pid = self.eval("list_to_integer(os:getpid()).").await;
        pid.as_u64().and_then(|pid| pid.try_into().ok()).expect("a process id")
    }

    /// How many consume `queue` of the default virtual host.
    pub async fn consumers(&self, queue: &str) -> u64 {
        self.root.consumers(queue).await
    }

    /// How many messages `queue` of the default virtual host holds, unacked ones included.
    pub async fn messages(&self, queue: &str) -> u64 {
        self.root.messages(queue).await
    }

    /// Deletes `queue` of the default virtual host under its consumers.
    pub async fn delete_queue(&self, queue: &str) {
        self.root.delete_queue(queue).await;
    }

    /// `kill -9`, of everything that belongs to it. Its data and its ports stay its own.
    ///
    /// Messages are synced before they are confirmed, but where a new queue's data lies is written
    /// with a delay; a queue that was declared just before would never have a leader again.
    pub async fn kill(&mut self) {
        self.eval("[dets:sync(T) || T <- dets:all()], mnesia:sync_log(), ok.").await;
        self.end("keep\n").await;
    }

    /// Starts it again after [`Node::kill`], on the same port, and waits until it can be used.
    pub async fn restart(&mut self) {
        assert!(self.watchdog.is_none(), "it is running");
        self.watchdog = Some(self.root.control.spawn());
        let url = self.url();
        eventually("the RabbitMQ node is up", START, || async {
            let connection = Connection::connect(&url, ConnectionProperties::default());
            let connection = timeout(Duration::from_secs(5), connection).await.ok()?.ok()?;
            connection.close(200, "OK".into()).await.ok()
        })
        .await;
        self.queues_lead().await;
    }

    /// RabbitMQ accepts connections before its quorum queues have leaders again, and what is
    /// published in between is not confirmed.
    async fn queues_lead(&self) {
        eventually("every queue has its leader", START, || async {
            let lead = self.eval(
                "lists:all(fun(Q) -> element(1, ra:members(amqqueue:get_pid(Q))) =:= ok end, \
                     [Q || Q <- rabbit_amqqueue:list(), \
                         amqqueue:get_type(Q) =:= rabbit_quorum_queue]).",
            );
            lead.await.as_bool().filter(|lead| *lead).map(drop)
        })
        .await;
    }

    /// Closes its listeners and connections; the Erlang node stays.
    pub async fn stop_app(&self) {
        self.eval("rabbit:stop().").await;
    }

    /// Undoes [`Node::stop_app`].
    pub async fn start_app(&self) {
        self.eval("rabbit:start().").await;
        self.queues_lead().await;
    }

    /// Closes every connection by force (320).
    pub async fn close_all_connections(&self) {
        self.eval(
            "[rabbit_networking:close_connection(C, \"by the test\") \
             || C <- rabbit_networking:connections()], ok.",
        )
        .await;
    }

    /// Raises the memory alarm, which blocks all who publish, or ends it.
    pub async fn set_memory_alarm(&self, on: bool) {
        let share = if on { "0.0000001" } else { "0.6" };
        let set = format!("vm_memory_monitor:set_vm_memory_high_watermark({share}).");
        self.eval(&set).await;
    }

    /// Raises the disk alarm, which blocks all who publish, or ends it.
    pub async fn set_disk_alarm(&self, on: bool) {
        let bytes = if on { "1000000000000000" } else { "1000" };
        self.eval(&format!("rabbit_disk_monitor:set_disk_free_limit({bytes}).")).await;
    }

    /// Evaluates Erlang `expressions`, which end with a full stop, on the node; the value as JSON.
    pub async fn eval(&self, expressions: &str) -> Value {
        self.root.control.eval(expressions).await
    }

    async fn end(&mut self, word: &'static str) {
        let Some(mut watchdog) = self.watchdog.take() else { return };
        let end = move || {
            use std::io::Write as _;
            let mut pipe = watchdog.stdin.take().expect("piped at its start");
            pipe.write_all(word.as_bytes()).expect("the watchdog reads");
            drop(pipe);
            watchdog.wait().expect("it is ours")
        };
        tokio::task::spawn_blocking(end).await.expect("it waits and no more");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let Some(mut watchdog) = self.watchdog.take() else {
            // Killed and not started again: nobody is left to remove it.
            let _ = std::fs::remove_dir_all(&self.root.control.folder);
            return;
        };
        drop(watchdog.stdin.take());
        let _ = watchdog.wait();
    }
}

impl Vhost {
    /// `amqp://…`.
    #[must_use]
    pub fn url(&self) -> String {
        let name = self.name.replace('/', "%2f");
        format!("amqp://guest:guest@127.0.0.1:{}/{name}", self.control.amqp_port)
    }

    /// How many consume `queue`; 0 when there is no such queue.
    pub async fn consumers(&self, queue: &str) -> u64 {
        self.consumer_list(queue).await.len() as u64
    }

    /// Who consumes `queue`.
    pub async fn consumer_list(&self, queue: &str) -> Vec<Consumer> {
        let list = format!(
            "[[proplists:get_value(prefetch_count, C), proplists:get_value(active, C)] \
             || C <- rabbit_amqqueue:consumers_all(<<\"{}\">>), \
             element(4, proplists:get_value(queue_name, C)) =:= <<\"{queue}\">>].",
            self.name
        );
        let list = self.control.eval(&list).await;
        let list = list.as_array().expect("a list comprehension").iter();
        list.map(|consumer| Consumer {
            prefetch: consumer[0].as_u64().expect("a number"),
            active: consumer[1].as_bool().expect("a boolean"),
        })
        .collect()
    }

    /// How many messages `queue` holds, unacked ones included; 0 when there is no such queue.
    pub async fn messages(&self, queue: &str) -> u64 {
        let (ready, unacked) = self.counts(queue).await;
        ready + unacked
    }

    /// How many messages of `queue` are ready, and how many unacked. Of quorum queues it asks the
    /// leader: what RabbitMQ reports elsewhere is up to 5 s old.
    pub async fn counts(&self, queue: &str) -> (u64, u64) {
        let counts = self.with_queue(
            queue,
            "case amqqueue:get_type(Q) of \
                 rabbit_quorum_queue -> \
                     {ok, {_, Counts}, _} = ra:leader_query(amqqueue:get_pid(Q), fun(S) -> \
                         [rabbit_fifo:query_messages_ready(S), \
                          rabbit_fifo:query_messages_checked_out(S)] end), Counts; \
                 _ -> \
                     [N || {_, N} <- rabbit_amqqueue:info(Q, \
                         [messages_ready, messages_unacknowledged])] \
             end",
            "[0, 0]",
        );
        let counts = counts.await;
        let count = |n: usize| counts[n].as_u64().expect("a number");
        (count(0), count(1))
    }

    /// Whether `queue` is a quorum queue.
    pub async fn is_quorum(&self, queue: &str) -> bool {
        let kind = self.with_queue(queue, "amqqueue:get_type(Q)", "none").await;
        kind == "rabbit_quorum_queue"
    }

    /// What `queue` is bound to, as exchange and key; none when there is no such queue.
    pub async fn bindings(&self, queue: &str) -> Vec<(String, String)> {
        let list = format!(
            "Q = rabbit_misc:r(<<\"{}\">>, queue, <<\"{queue}\">>), \
             [[element(4, element(2, B)), element(3, B)] || \
             B <- rabbit_binding:list_for_destination(Q), \
             element(4, element(2, B)) =/= <<>>].",
            self.name
        );
        let list = self.control.eval(&list).await;
        let text = |value: &Value| value.as_str().expect("a name").to_owned();
        let list = list.as_array().expect("a list comprehension").iter();
        list.map(|binding| (text(&binding[0]), text(&binding[1]))).collect()
    }

    /// Deletes `queue` under its consumers, and says how many messages were ready in it and so
    /// are lost.
    pub async fn delete_queue(&self, queue: &str) -> u64 {
        let delete = "{ok, Ready} = rabbit_amqqueue:delete(Q, false, false, <<\"tests\">>), Ready";
        self.with_queue(queue, delete, "0").await.as_u64().expect("a number")
    }

    /// Closes every connection to this virtual host by force (320).
    pub async fn close_connections(&self) {
        let close = format!(
            "[rabbit_networking:close_connection(C, \"by the test\") \
             || C <- rabbit_networking:connections(), \
             rabbit_reader:info(C, [vhost]) =:= [{{vhost, <<\"{}\">>}}]], ok.",
            self.name
        );
        self.control.eval(&close).await;
    }

    async fn with_queue(&self, queue: &str, then: &str, otherwise: &str) -> Value {
        let expressions = format!(
            "case rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{}\">>, queue, <<\"{queue}\">>)) of \
                 {{ok, Q}} -> {then}; \
                 _ -> {otherwise} \
             end.",
            self.name
        );
        self.control.eval(&expressions).await
    }
}
