//! The way to an API, which can be made to hang.

use std::{io, net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// Passes on what is said either way; while it hangs, questions only, while it is deaf, answers
/// only. Ends when dropped.
pub struct Proxy {
    address: SocketAddr,
    hangs: Arc<watch::Sender<bool>>,
    word: Arc<Mutex<Option<String>>>,
    deaf: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// One in front of the API at `url`, `http://host:port`.
    pub async fn to(url: &str) -> Self {
        let target = url.strip_prefix("http://").expect("plain HTTP").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (hangs, hanging) = watch::channel(false);
        let (hangs, word) = (Arc::new(hangs), Arc::<Mutex<Option<String>>>::default());
        let trigger = Trigger { word: Arc::clone(&word), hangs: Arc::clone(&hangs) };
        let (deaf, hearing) = watch::channel(false);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (questions, answers) = (hearing.clone(), hanging.clone());
                let trigger = trigger.clone();
                tokio::spawn(pass(stream, target.clone(), questions, answers, trigger));
            }
        });
        Self { address, hangs, word, deaf, task }
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers nothing any more, on old connections and new ones; or passes on what it withheld.
    pub fn set_hangs(&self, hangs: bool) {
        self.hangs.send_replace(hangs);
    }
}

/// Makes the proxy hang when a word is said.
#[derive(Clone)]
struct Trigger {
    word: Arc<Mutex<Option<String>>>,
    hangs: Arc<watch::Sender<bool>>,
}

impl Trigger {
    fn heard(&self, said: &[u8]) {
        let mut word = self.word.lock();
        if word
            .as_ref()
            .is_some_and(|word| said.windows(word.len()).any(|window| window == word.as_bytes()))
        {
            *word = None;
            self.hangs.send_replace(true);
        }
    }
}

impl Proxy {
    /// Passes on what is asked until `word` is in it, that too, and hangs from then on.
    pub fn set_hangs_at(&self, word: &str) {
        *self.word.lock() = Some(word.to_owned());
    }

    /// Swallows all that is asked, and what is asked later on the same connections; or is well
    /// again for new ones.
    pub fn set_deaf(&self, deaf: bool) {
        self.deaf.send_replace(deaf);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Until either side has gone, which is none of the proxy's business.
async fn pass(
    client: TcpStream,
    target: String,
    questions: watch::Receiver<bool>,
    answers: watch::Receiver<bool>,
    trigger: Trigger,
) {
    let Ok(api) = TcpStream::connect(target).await else { return };
    let _ = (client.set_nodelay(true), api.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_api, to_api) = api.into_split();
    tokio::select! {
        _ = ask(from_client, to_api, questions, trigger) => {}
        _ = answer(from_api, to_client, answers) => {}
    }
}

async fn ask(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    deaf: watch::Receiver<bool>,
    trigger: Trigger,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    let mut swallows = false;
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        trigger.heard(&buffer[..read]);
        swallows |= *deaf.borrow();
        if !swallows {
            to.write_all(&buffer[..read]).await?;
        }
    }
}

async fn answer(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut hanging: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await?;
        let ended = hanging.wait_for(|hangs| !hangs).await.is_err();
        if read == 0 || ended {
            return Ok(());
        }
        to.write_all(&buffer[..read]).await?;
    }
}
