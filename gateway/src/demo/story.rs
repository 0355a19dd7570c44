//! The story, as it happens, with counts; and the check that it ended well.

use std::{collections::HashMap, time::Duration};

use serde_json::Value;
use tidegate_adapters::{Data, Event};
use tokio::time::{Instant, interval, sleep_until};

use super::{Parties, print};
use crate::{
    app::Inspect,
    mock::{Handle, Recorded},
    protect::BreakerState,
};

/// So many orders, so far apart.
const ORDERS: u64 = 160;
const APART: Duration = Duration::from_millis(60);

/// The story ends by then, or it ended badly.
const DEADLINE: Duration = Duration::from_secs(35);

/// Tells it.
///
/// # Errors
/// What did not happen as it should have.
pub(super) async fn tell(company: &dyn Inspect, parties: &Parties) -> Result<(), String> {
    let start = Instant::now();
    let mut narrator = Narrator { start, breaker: BreakerState::Closed, held: false, row: 0 };
    print(OPENING)?;
    let mut seconds = interval(Duration::from_secs(1));
    let mut published = 0;
    loop {
        let next = start + APART.mul_f64(published as f64);
        tokio::select! {
            () = sleep_until(next), if published < ORDERS => {
                published += 1;
                publish(company, published).await?;
            }
            _ = seconds.tick() => narrator.look(company, published, parties)?,
            () = sleep_until(start + DEADLINE) => {
                return Err(format!("not all orders arrived within {DEADLINE:?}"));
            }
        }
        if published == ORDERS && arrived(parties) && settled(company) {
            break;
        }
    }
    narrator.look(company, published, parties)?;
    let took = start.elapsed().as_secs_f64();
    verify(parties)?;
    print(&format!(
        "\n  {took:4.1}s  Every one of {ORDERS} orders was paid, cooked, rewarded and brought to \
         its door:\n         all calls accepted, each exactly once per idempotency key, and every \
         webhook an event.\n"
    ))
}

const OPENING: &str = "
  Plant-Based Pizza opens. Events go out as calls, what third parties answer by webhook comes in as
  events, each way behind a durable queue:

    order.confirmed ─┬─► kitchen display
                     ├─► e-mail
                     ├─► loyalty points (a SaaS: 20 calls a second at most)
                     │      └─ webhook ─► loyalty.points-awarded ─► e-mail
                     └─► payments
                            └─ webhook ─► payment_intent.succeeded ─► delivery company
                                  ├─ callback ─► delivery.picked-up ─► off the kitchen display
                                  └─ callback ─► delivery.delivered ─► e-mail

          orders   cooked     paid   points   booked   brought   e-mails   waiting\n";

struct Narrator {
    start: Instant,
    breaker: BreakerState,
    held: bool,
    row: u32,
}

impl Narrator {
    /// One row of counts, and a sentence when something changed.
    fn look(
        &mut self,
        company: &dyn Inspect,
        published: u64,
        parties: &Parties,
    ) -> Result<(), String> {
        let at = self.start.elapsed().as_secs_f64();
        let accepted = |api: &Handle| api.tally().accepted;
        let [paid, points] = [&parties.payments, &parties.loyalty].map(accepted);
        let [booked, emails] = [&parties.delivery, &parties.email].map(accepted);
        let routes = company.queue().routes();
        let waiting: u64 = routes.iter().map(|route| route.counts.pending).sum();
        let of_route = |name: &str| {
            let route = routes.iter().find(|route| &*route.name == name);
            route.map_or(0, |route| route.counts.delivered)
        };
        let [cooked, brought] = ["kitchen-tickets", "delivered-emails"].map(of_route);
        let upstreams = company.upstreams();
        let saas = upstreams.iter().find(|upstream| &*upstream.name == "loyalty-saas");
        let breaker = saas.and_then(|saas| saas.breaker).map_or(self.breaker, |now| now.state);
        let quiet = saas.is_some_and(|saas| saas.paused_until.is_some());
        let mut said = String::new();
        if breaker == BreakerState::Open && self.breaker == BreakerState::Closed {
            said.push_str(
                "         ✗ The loyalty SaaS is down. Its breaker opens: its calls wait in the \
                 queue, the others do not notice.\n",
            );
        }
        if breaker == BreakerState::Closed && self.breaker != BreakerState::Closed {
            said.push_str("         ✓ A probe got through: the loyalty SaaS is back.\n");
        }
        if quiet && !self.held {
            said.push_str(
                "         … It answers 429: all its calls pause for as long as it asks.\n",
            );
        }
        self.breaker = breaker;
        self.held = quiet;
        self.row += 1;
        print(&format!(
            "{said}  {at:4.1}s  {published:6}   {cooked:6}   {paid:6}   {points:6}   {booked:6}   \
             {brought:7}   {emails:7}   {waiting:7}\n"
        ))
    }
}

async fn publish(company: &dyn Inspect, number: u64) -> Result<(), String> {
    let total = 9.5 + (number % 7) as f64 * 2.75;
    let data = serde_json::json!({
        "orderId": format!("order-{number:04}"),
        "storeId": format!("store-{}", number % 3),
        "customerId": format!("customer-{}", number % 40),
        "customer": {
            "name": format!("Customer {}", number % 40),
            "email": format!("customer-{}@plant-based-pizza.example", number % 40),
        },
        "total": total,
        "items": [{ "recipe": "marinara", "quantity": 1 + number % 2 }],
    });
    let event = Event {
        id: uuid::Uuid::new_v4().to_string(),
        source: "/orders".to_owned(),
        kind: "order.confirmed.v1".to_owned(),
        subject: Some(format!("order-{number:04}")),
        time: None,
        datacontenttype: Some("application/json".to_owned()),
        dataschema: None,
        extensions: std::collections::BTreeMap::new(),
        traceparent: None,
        hops: 0,
        data: Data::Json(data.to_string().into()),
    };
    let published =
        company.publish("orders".to_owned(), "order.confirmed.v1".to_owned(), event).await;
    published.map_err(|error| format!("order {number}: {error}"))
}

/// How many calls each third party accepts when all orders have gone all the way: a ticket made and
/// cleared, points, a payment, a delivery, and three e-mails.
fn expected(parties: &Parties) -> [(&Handle, u64); 5] {
    [
        (&parties.kitchen, 2 * ORDERS),
        (&parties.loyalty, ORDERS),
        (&parties.payments, ORDERS),
        (&parties.delivery, ORDERS),
        (&parties.email, 3 * ORDERS),
    ]
}

fn arrived(parties: &Parties) -> bool {
    expected(parties).iter().all(|(api, calls)| {
        let webhooks = api.webhooks();
        api.tally().accepted >= *calls && webhooks.delivered == webhooks.made
    })
}

fn settled(company: &dyn Inspect) -> bool {
    company.queue().routes().iter().all(|route| route.counts.pending == 0)
}

/// Every call was accepted once, every webhook became an event, and every order has its three
/// e-mails.
fn verify(parties: &Parties) -> Result<(), String> {
    for (api, calls) in expected(parties) {
        let mut keys: HashMap<String, u32> = HashMap::new();
        for request in accepted(api) {
            let key = request.idempotency_key().unwrap_or("none").to_owned();
            *keys.entry(key).or_default() += 1;
        }
        let twice = keys.values().filter(|times| **times > 1).count();
        if keys.len() as u64 != calls || twice > 0 {
            return Err(format!(
                "the {} API accepted {} of {calls} calls, {twice} of them more than once",
                api.name(),
                keys.len()
            ));
        }
        let webhooks = api.webhooks();
        if webhooks.delivered != webhooks.made {
            return Err(format!(
                "of {} webhooks of the {} API {} were taken",
                webhooks.made,
                api.name(),
                webhooks.delivered
            ));
        }
    }
    let mut emails: HashMap<String, u32> = HashMap::new();
    for request in accepted(&parties.email) {
        let body: Value = serde_json::from_str(&request.body).unwrap_or_default();
        *emails.entry(body["order"].as_str().unwrap_or("none").to_owned()).or_default() += 1;
    }
    let complete = emails.values().filter(|count| **count == 3).count() as u64;
    if complete != ORDERS || emails.len() as u64 != ORDERS {
        return Err(format!("{complete} of {ORDERS} orders have all of their e-mails"));
    }
    Ok(())
}

fn accepted(api: &Handle) -> impl Iterator<Item = Recorded> {
    api.requests().into_iter().filter(|request| (200..300).contains(&request.status))
}
