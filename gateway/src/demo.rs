//! Plant-Based Pizza: the whole company in one process, to watch Tidegate at work.
//!
//! Orders are confirmed; each becomes a call to the kitchen's display, to the loyalty-points SaaS
//! and to the e-mail API. The SaaS allows less than it says and goes down for a while; the queue
//! holds its calls, the others never notice, and in the end every order has reached every API
//! once. The configuration is the real one of `config/plant-based-pizza/`; only its addresses and
//! its broker are the demo's own.

mod story;

use std::{io::Write as _, path::PathBuf};

use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    config,
    mock::{self, Handle, MockApi},
};

/// The configuration files of the company, built in so that the binary alone can tell the story.
const FILES: [(&str, &str); 3] = [
    ("gateway.yaml", include_str!("../../config/plant-based-pizza/gateway.yaml")),
    ("upstreams.yaml", include_str!("../../config/plant-based-pizza/upstreams.yaml")),
    ("routes.yaml", include_str!("../../config/plant-based-pizza/routes.yaml")),
];

/// What the demo puts in the place of `broker.yaml`.
const BROKER: &str = "broker: { embedded: {} }\n";

/// The third parties, as `tidegate mock` would play them.
const THIRD_PARTIES: &str = include_str!("demo/third-parties.yaml");

/// The company, started.
struct Company {
    app: App,
    kitchen: Handle,
    loyalty: Handle,
    email: Handle,
    apis: Vec<MockApi>,
    /// Holds configuration and queue; removed at the end.
    folder: Folder,
}

/// Tells the story; with `once` it ends after the last order has been verified, else the company
/// stays up until `shutdown`.
///
/// # Errors
/// What went wrong, or what the story should have shown and did not.
pub async fn run(once: bool, shutdown: CancellationToken) -> Result<(), String> {
    let company = Company::start().await?;
    let inspect = company.app.inspect();
    let (kitchen, loyalty, email) =
        (company.kitchen.clone(), company.loyalty.clone(), company.email.clone());
    let apis_stop = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    for api in company.apis {
        let stop = apis_stop.clone();
        tasks.spawn(async move { api.run(stop).await });
    }
    let app_stop = CancellationToken::new();
    let app = tokio::spawn(company.app.run(app_stop.clone()));
    let admin = inspect.admin_url();
    let told = tokio::select! {
        told = story::tell(&*inspect, [&kitchen, &loyalty, &email]) => told,
        () = shutdown.cancelled() => Err("interrupted".to_owned()),
    };
    if told.is_ok() && !once {
        invite(&admin, [&kitchen, &loyalty, &email])?;
        shutdown.cancelled().await;
    }
    app_stop.cancel();
    let ended = app.await.map_err(|error| error.to_string())?;
    apis_stop.cancel();
    while tasks.join_next().await.is_some() {}
    drop(company.folder);
    told.and(ended.map_err(|error| error.to_string()))
}

impl Company {
    async fn start() -> Result<Self, String> {
        let folder = Folder::new()?;
        let mut apis = Vec::new();
        let third_parties: mock::MockConfig =
            mock::config::parse("third-parties.yaml", THIRD_PARTIES)?;
        for (name, config) in third_parties.apis {
            apis.push(MockApi::bind(&name, config).await.map_err(|error| error.to_string())?);
        }
        let api = |name: &str| {
            let found = apis.iter().map(MockApi::handle).find(|api| api.name() == name);
            found.ok_or_else(|| format!("third-parties.yaml has no `{name}`"))
        };
        let (kitchen, loyalty, email) = (api("kitchen")?, api("loyalty")?, api("email")?);
        for (name, text) in FILES.into_iter().chain([("broker.yaml", BROKER)]) {
            std::fs::write(folder.path.join(name), text).map_err(|error| error.to_string())?;
        }
        let queue = folder.path.join("queue.db").display().to_string();
        let admin = free_admin_address().await;
        let environment = config::Environment::from_iter([
            ("KITCHEN_URL", kitchen.url()),
            ("LOYALTY_URL", loyalty.url()),
            ("EMAIL_URL", email.url()),
            ("TIDEGATE__QUEUE__SQLITE__PATH", queue),
            ("TIDEGATE__ADMIN__LISTEN", admin),
            ("TIDEGATE__LOG__LEVEL", "error".to_owned()),
        ]);
        let loaded = config::load(std::slice::from_ref(&folder.path), &environment)
            .map_err(|report| report.to_string())?;
        let app = App::new(loaded.config).await.map_err(|error| error.to_string())?;
        Ok(Self { app, kitchen, loyalty, email, apis, folder })
    }
}

/// The usual admin address, or a free one when something else listens there.
async fn free_admin_address() -> String {
    const USUAL: &str = "127.0.0.1:9090";
    match tokio::net::TcpListener::bind(USUAL).await {
        Ok(_) => USUAL.to_owned(),
        Err(_) => "127.0.0.1:0".to_owned(),
    }
}

fn invite(admin: &str, apis: [&Handle; 3]) -> Result<(), String> {
    let mut lines = format!(
        "\n  The company stays open. Look around:\n\
         \n    {admin}/metrics\n    {admin}/api/v1/routes\n    {admin}/api/v1/upstreams\n    \
         {admin}/api/v1/deliveries?state=delivered&limit=5\n"
    );
    for api in apis {
        lines.push_str(&format!(
            "    {}/_mock/requests  what the {} API got\n",
            api.url(),
            api.name()
        ));
    }
    lines.push_str(&format!(
        "\n    tidegate --help        (with --admin {admin})\n\n  Ctrl-C closes it.\n"
    ));
    print(&lines)
}

fn print(text: &str) -> Result<(), String> {
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())
}

/// A folder of our own in the system's place for such, removed when dropped.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn new() -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("tidegate-demo-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Left behind, it is a few hundred kilobytes in a folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
