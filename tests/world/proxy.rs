//! The way to an API, which can be made to hang.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// Passes on what is said either way; while it hangs, questions only. Ends when dropped.
pub struct Proxy {
    address: SocketAddr,
    hangs: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// One in front of the API at `url`, `http://host:port`.
    pub async fn to(url: &str) -> Self {
        let target = url.strip_prefix("http://").expect("plain HTTP").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (hangs, hanging) = watch::channel(false);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pass(stream, target.clone(), hanging.clone()));
            }
        });
        Self { address, hangs, task }
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

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Until either side has gone, which is none of the proxy's business.
async fn pass(client: TcpStream, target: String, mut hanging: watch::Receiver<bool>) {
    let Ok(api) = TcpStream::connect(target).await else { return };
    let _ = (client.set_nodelay(true), api.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_api, mut to_api) = api.into_split();
    let answers = async move {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let read = from_api.read(&mut buffer).await?;
            let ended = hanging.wait_for(|hangs| !hangs).await.is_err();
            if read == 0 || ended {
                return io::Result::Ok(());
            }
            to_client.write_all(&buffer[..read]).await?;
        }
    };
    tokio::select! {
        _ = copy(&mut from_client, &mut to_api) => {}
        _ = answers => {}
    }
}
