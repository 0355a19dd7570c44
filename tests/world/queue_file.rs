//! Queue files, made and looked into as the gateway would.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use rusqlite::{Connection, OpenFlags};
use tidegate::queue::{
    Append, Bounds, Content, Filter, Queue, RouteSettings, Space, State,
    sqlite::{Options, SqliteQueue},
};
use tidegate_adapters::{Data, Event, Timestamp};

/// The largest it may become; so, how large its ballast is.
const MAX_SIZE: u64 = 64 << 20;

/// Opens the queue file at `path`, and makes it when it is missing.
///
/// # Errors
/// What the queue says.
pub fn open(path: &Path) -> Result<SqliteQueue, String> {
    if let Some(folder) = path.parent().filter(|folder| folder.exists()) {
        // As large as it would be made, and made faster.
        let mut name = path.file_name().expect("a file").to_owned();
        name.push(".ballast");
        let ballast = std::fs::File::create(folder.join(name)).expect("writable");
        ballast.set_len(MAX_SIZE / 16).expect("writable");
    }
    let options = Options {
        path: path.to_owned(),
        bounds: Bounds {
            max_size: MAX_SIZE,
            max_route_share: 0.5,
            keep_delivered: Duration::from_secs(1 << 40),
            keep_dead: Duration::from_secs(1 << 40),
        },
        observer: Arc::new(|_| {}),
        clock: Arc::new(|| Timestamp(0)),
    };
    SqliteQueue::open(options).map_err(|error| error.to_string())
}

/// Appends events `0..count` to the route `r`, each in a commit of its own.
///
/// # Errors
/// What the queue says.
pub async fn fill(queue: &SqliteQueue, count: usize) -> Result<(), String> {
    let settings = RouteSettings { name: "r".into(), dedupe: None, hold: false };
    queue.configure(vec![settings]).await.map_err(|error| error.to_string())?;
    for n in 0..count {
        let data = format!("{{\"n\":{n},\"filler\":\"{}\"}}", "x".repeat(600));
        let content = Content::Pending(Arc::new(event(format!("e-{n}"), data)));
        let append = Append { content, key: None, dedupe: true };
        let appended = queue.append(&"r".into(), vec![append], Space::Capped).await;
        appended.map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn event(id: String, data: String) -> Event {
    Event {
        id,
        source: "/orders".to_owned(),
        kind: "order.confirmed.v1".to_owned(),
        subject: None,
        time: None,
        datacontenttype: Some("application/json".to_owned()),
        dataschema: None,
        extensions: BTreeMap::new(),
        traceparent: None,
        hops: 0,
        data: Data::Json(data.into()),
    }
}

/// Every event in it, whatever its state, with its data.
///
/// # Errors
/// What the queue says, or which counter is not what is there.
pub async fn events(queue: &SqliteQueue) -> Result<BTreeMap<String, Bytes>, String> {
    // An answer of the writer's; what is counted is shown from then on.
    queue.configure(Vec::new()).await.map_err(|error| error.to_string())?;
    let mut states = HashMap::<_, u64>::new();
    let mut events = BTreeMap::new();
    let mut cursor = None;
    loop {
        let page = queue.list(Filter::default(), cursor, 500).await;
        let page = page.map_err(|error| error.to_string())?;
        for listed in page.deliveries {
            *states.entry((Arc::clone(&listed.delivery.route), listed.state)).or_default() += 1;
            let shown = queue.show(listed.delivery.id).await.map_err(|error| error.to_string())?;
            let event = &shown.delivery.event;
            events.insert(event.id.to_string(), event.data_bytes());
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    for route in queue.routes() {
        let counted = |state| states.get(&(Arc::clone(&route.name), state)).copied().unwrap_or(0);
        let there = (counted(State::Pending), counted(State::Delivered));
        if (route.counts.pending, route.counts.delivered) != there {
            return Err(format!("{}: {:?} counted, {there:?} there", route.name, route.counts));
        }
    }
    Ok(events)
}

/// What SQLite itself says of a file that nobody has open.
///
/// # Errors
/// What is wrong with it.
pub fn whole(path: &Path) -> Result<(), String> {
    let check = || -> rusqlite::Result<String> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))
    };
    match check() {
        Ok(said) if said == "ok" => Ok(()),
        Ok(said) => Err(format!("not whole: {said}")),
        Err(error) => Err(format!("not whole: {error}")),
    }
}
