//! Plant-Based Pizza: the whole company in one process, to watch Tidegate at work.
//!
//! Orders are confirmed; each becomes calls to the kitchen's display, the loyalty-points SaaS, the
//! payment provider and the e-mail API. The third parties answer by webhooks, which become events,
//! which become the next calls: what is paid for is brought, what was picked up leaves the display,
//! points and the delivery are written home about. The SaaS allows less than it says and goes down
//! for a while; the queue holds its calls, the others never notice, and in the end every order has
//! gone all the way. The configuration is the real one of `config/plant-based-pizza/`; only its
//! addresses and its broker are the demo's own.

mod story;

use std::{io::Write as _, path::PathBuf};

use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    config,
    mock::{self, Handle, MockApi},
};

/// The configuration files of the company, built in so that the binary alone can tell the story.
const FILES: [(&str, &str); 4] = [
    ("gateway.yaml", include_str!("../../config/plant-based-pizza/gateway.yaml")),
    ("upstreams.yaml", include_str!("../../config/plant-based-pizza/upstreams.yaml")),
    ("routes.yaml", include_str!("../../config/plant-based-pizza/routes.yaml")),
    ("webhooks.yaml", include_str!("../../config/plant-based-pizza/webhooks.yaml")),
];

/// What the demo puts in the place of `broker.yaml`.
const BROKER: &str = "broker: { embedded: {} }\n";

/// The third parties, as `tidegate mock` would play them.
const THIRD_PARTIES: &str = include_str!("demo/third-parties.yaml");

/// The company, started.
struct Company {
    app: App,
    parties: Parties,
    apis: Vec<MockApi>,
    /// Holds configuration and queue; removed at the end.
    folder: Folder,
}

/// The third parties, to be looked at.
#[derive(Clone)]
struct Parties {
    kitchen: Handle,
    loyalty: Handle,
    payments: Handle,
    delivery: Handle,
    email: Handle,
}

impl Parties {
    fn of(apis: &[MockApi]) -> Result<Self, String> {
        let api = |name: &str| {
            let found = apis.iter().map(MockApi::handle).find(|api| api.name() == name);
            found.ok_or_else(|| format!("third-parties.yaml has no `{name}`"))
        };
        Ok(Self {
            kitchen: api("kitchen")?,
            loyalty: api("loyalty")?,
            payments: api("payments")?,
            delivery: api("delivery")?,
            email: api("email")?,
        })
    }

    fn all(&self) -> [&Handle; 5] {
        [&self.kitchen, &self.loyalty, &self.payments, &self.delivery, &self.email]
    }
}

/// Tells the story; with `once` it ends after the last order has been verified, else the company
/// stays up until `shutdown`.
///
/// # Errors
/// What went wrong, or what the story should have shown and did not.
pub async fn run(once: bool, shutdown: CancellationToken) -> Result<(), String> {
    let company = Company::start().await?;
    let inspect = company.app.inspect();
    let parties = company.parties;
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
        told = story::tell(&*inspect, &parties) => told,
        () = shutdown.cancelled() => Err("interrupted".to_owned()),
    };
    if told.is_ok() && !once {
        invite(&admin, &parties)?;
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
        let parties = Parties::of(&apis)?;
        for (name, text) in FILES.into_iter().chain([("broker.yaml", BROKER)]) {
            std::fs::write(folder.path.join(name), text).map_err(|error| error.to_string())?;
        }
        let queue = folder.path.join("queue.db").display().to_string();
        let admin = free_admin_address().await;
        let environment = config::Environment::from_iter([
            ("KITCHEN_URL", parties.kitchen.url()),
            ("LOYALTY_URL", parties.loyalty.url()),
            ("PAYMENTS_URL", parties.payments.url()),
            ("DELIVERY_URL", parties.delivery.url()),
            ("EMAIL_URL", parties.email.url()),
            ("TIDEGATE__QUEUE__SQLITE__PATH", queue),
            ("TIDEGATE__ADMIN__LISTEN", admin),
            ("TIDEGATE__SERVER__LISTEN", "127.0.0.1:0".to_owned()),
            ("TIDEGATE__LOG__LEVEL", "error".to_owned()),
        ]);
        let loaded = config::load(std::slice::from_ref(&folder.path), &environment)
            .map_err(|report| report.to_string())?;
        let app = App::new(loaded.config).await.map_err(|error| error.to_string())?;
        let webhooks = app.inspect().webhooks_url().ok_or("nothing listens for webhooks")?;
        let webhooks = url::Url::parse(&webhooks).map_err(|error| error.to_string())?;
        for party in parties.all() {
            party.set_webhook_base(webhooks.clone());
        }
        Ok(Self { app, parties, apis, folder })
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

fn invite(admin: &str, parties: &Parties) -> Result<(), String> {
    let mut lines = format!(
        "\n  The company stays open. Look around:\n\
         \n    {admin}/metrics\n    {admin}/api/v1/routes\n    {admin}/api/v1/upstreams\n    \
         {admin}/api/v1/deliveries?state=delivered&limit=5\n"
    );
    for api in parties.all() {
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
