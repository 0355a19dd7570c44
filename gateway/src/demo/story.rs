//! The story, as it happens, with counts; and the check that it ended well.

use std::{collections::HashMap, time::Duration};

use tidegate_adapters::{Data, Event};
use tokio::time::{Instant, interval, sleep_until};

use super::print;
use crate::{app::Inspect, mock::Handle, protect::BreakerState};

/// So many orders, so far apart.
const ORDERS: u64 = 160;
const APART: Duration = Duration::from_millis(60);

/// The story ends by then, or it ended badly.
const DEADLINE: Duration = Duration::from_secs(35);

/// Tells it. `apis` are kitchen, loyalty, e-mail.
///
/// # Errors
/// What did not happen as it should have.
pub(super) async fn tell(company: &dyn Inspect, apis: [&Handle; 3]) -> Result<(), String> {
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
            _ = seconds.tick() => narrator.look(company, published, apis)?,
            () = sleep_until(start + DEADLINE) => {
                return Err(format!("not all orders arrived within {DEADLINE:?}"));
            }
        }
        if published == ORDERS && arrived(apis) && settled(company) {
            break;
        }
    }
    narrator.look(company, published, apis)?;
    let took = start.elapsed().as_secs_f64();
    verify(apis)?;
    print(&format!(
        "\n  {took:4.1}s  Every one of {ORDERS} orders reached all three APIs, each exactly once \
         per idempotency key.\n"
    ))
}

const OPENING: &str = "
  Plant-Based Pizza opens. Confirmed orders go to three APIs, each behind its own queue:

    order.confirmed ─┬─► kitchen display
                     ├─► loyalty points (a SaaS: 20 calls a second at most)
                     └─► e-mail

          orders   kitchen   loyalty   e-mail   waiting\n";

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
        apis: [&Handle; 3],
    ) -> Result<(), String> {
        let at = self.start.elapsed().as_secs_f64();
        let [kitchen, loyalty, email] = apis.map(|api| api.tally().accepted);
        let waiting: u64 = company.queue().routes().iter().map(|route| route.counts.pending).sum();
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
            "{said}  {at:4.1}s  {published:6}   {kitchen:7}   {loyalty:7}   {email:6}   \
             {waiting:7}\n"
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

fn arrived(apis: [&Handle; 3]) -> bool {
    apis.iter().all(|api| api.tally().accepted >= ORDERS)
}

fn settled(company: &dyn Inspect) -> bool {
    company.queue().routes().iter().all(|route| route.counts.pending == 0)
}

/// Every order reached every API, and none was accepted twice.
fn verify(apis: [&Handle; 3]) -> Result<(), String> {
    for api in apis {
        let mut orders: HashMap<String, u32> = HashMap::new();
        for request in api.requests() {
            if (200..300).contains(&request.status) {
                let key = request.idempotency_key().unwrap_or("none").to_owned();
                *orders.entry(key).or_default() += 1;
            }
        }
        let twice = orders.values().filter(|times| **times > 1).count();
        if orders.len() as u64 != ORDERS || twice > 0 {
            return Err(format!(
                "the {} API accepted {} of {ORDERS} orders, {twice} of them more than once",
                api.name(),
                orders.len()
            ));
        }
    }
    Ok(())
}
