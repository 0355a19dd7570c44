//! The configurations we ship for real products, each against a mock that behaves as the product's
//! documentation says. The pages are named in the configurations.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tidegate::mock::Recorded;
use tidegate_adapters::{Timestamp, event::attribute::rfc3339};
use tidegate_tests::{
    Gateway, Product,
    amqp::{Message, Publisher},
    eventually,
    product::{answer, answer_with, folder, form, header, json as body, required, shipped},
    rabbitmq::{Node, Vhost},
};
use tokio::process::Command;

pub(crate) const IN_TIME: Duration = Duration::from_secs(60);

/// Runs what we ship for `product`, with `variables` set and RabbitMQ in place, until `route` takes
/// in events.
pub(crate) async fn run(
    broker: &Vhost,
    product: &str,
    variables: &[(&str, &str)],
    route: &str,
) -> Gateway {
    let mut gateway = Gateway::new(&shipped(product));
    gateway.set("TIDEGATE_RABBITMQ_URL", broker.url());
    for (name, value) in variables {
        gateway.set(name, *value);
    }
    gateway.run().await;
    let queue = format!("tidegate.{route}");
    eventually("the queue is bound", IN_TIME, || async {
        (broker.consumers(&queue).await == 1).then_some(())
    })
    .await;
    gateway
}

/// An event of type and routing key `kind`.
fn event(kind: &str, id: &str, data: &Value) -> Message {
    let event = json!({
        "specversion": "1.0",
        "id": id,
        "source": "/shop",
        "type": kind,
        "datacontenttype": "application/json",
        "data": data,
    });
    Message {
        key: kind.to_owned(),
        content_type: "application/cloudevents+json",
        body: event.to_string().into_bytes(),
    }
}

async fn publish(broker: &Vhost, exchange: &str, messages: &[Message]) {
    Publisher::connect(&broker.url()).await.publish(exchange, messages).await;
}

/// Waits until so many deliveries of `route` are delivered, so many dead, and none pending.
pub(crate) async fn settled(gateway: &Gateway, route: &str, delivered: u64, dead: u64) {
    eventually("all is settled", IN_TIME, || async {
        let counts = gateway.get(&format!("/api/v1/routes/{route}")).await["counts"].clone();
        let is = |state: &str| counts[state].as_u64();
        let all = is("pending") == Some(0) && is("active").unwrap_or(0) == 0;
        (all && is("delivered") == Some(delivered) && is("dead") == Some(dead)).then_some(())
    })
    .await;
}

/// The events that are dead, with their reasons.
async fn dead(gateway: &Gateway) -> Vec<(String, String)> {
    let page = gateway.get("/api/v1/deliveries?state=dead").await;
    let deliveries = page["deliveries"].as_array().expect("a list").iter();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    deliveries.map(|dead| (text(&dead["event_id"]), text(&dead["reason"]))).collect()
}

/// Since 1970, as the mocks' headers and ours say it.
#[expect(clippy::disallowed_methods, reason = "the mocks' clock: what they name is wall time")]
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970")
}

/// Which event each request was about, by `key` of its body, and what was answered.
fn story(product: &Product, key: impl Fn(&Recorded) -> Value) -> Vec<(String, u16)> {
    let asked = product.asked();
    asked.iter().map(|r| (key(r).as_str().unwrap_or("").to_owned(), r.status)).collect()
}

#[tokio::test]
async fn each_configuration_says_which_variables_it_needs() {
    for file in std::fs::read_dir(folder()).expect("config/products") {
        let path = file.expect("an entry").path();
        let names = required(&std::fs::read_to_string(&path).expect("text"));
        let mut check = Command::new(tidegate_tests::gateway::binary());
        check.arg("check").arg("-c").arg(&path).env_clear();
        let output = check.output().await.expect("the binary");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!names.is_empty(), "{}: an API without credentials?", path.display());
        assert_eq!(output.status.code(), Some(78), "{}: {said}", path.display());
        for name in names {
            assert!(said.contains(&format!("{name} is not set: ")), "no {name} in:\n{said}");
        }
    }
}

/// <https://docs.voucherify.io/docs/limits>: who has used up the limit is told when the next
/// request may be made, in `X-Rate-Limit-Retry`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voucherify_gets_points_and_is_left_alone_until_the_time_it_names() {
    let broker = Node::shared().await.vhost().await;
    let until = Mutex::new(None);
    let api = Product::start(move |request| {
        let keys = (header(request, "x-app-id"), header(request, "x-app-token"));
        if keys != ("app-1", "canary-voucherify") {
            return answer(401, &json!({ "code": 401, "key": "unauthorized" }));
        }
        let until = until.lock().get_or_insert_with(|| now().as_secs() + 4).to_owned();
        if now().as_secs() < until {
            return answer_with(429, "X-Rate-Limit-Retry", &until.to_string(), &json!({}));
        }
        if request.path != "/v1/loyalties/members/MmFAzfDe/balance" {
            return answer(404, &json!({ "code": 404, "key": "resource_not_found" }));
        }
        let points = body(request)["points"].clone();
        let balance = json!({
            "points": points, "total": 100, "balance": 100, "type": "loyalty_card",
            "object": "balance", "related_object": { "type": "voucher", "id": "v_1" },
        });
        answer(200, &balance)
    })
    .await;
    let url = api.url();
    let variables = [
        ("VOUCHERIFY_URL", &*url),
        ("VOUCHERIFY_APP_ID", "app-1"),
        ("VOUCHERIFY_SECRET_KEY", "canary-voucherify"),
    ];
    let gateway = run(&broker, "voucherify", &variables, "voucherify-points").await;
    let order = |id: &str, card: &Value, total: f64| {
        let data = json!({ "orderId": id, "loyaltyCard": card, "total": total });
        event("order.confirmed.v1", id, &data)
    };
    let orders = [
        order("o-1", &json!("MmFAzfDe"), 12.5),
        order("no-card", &Value::Null, 12.5),
        order("o-2", &json!("MmFAzfDe"), 7.0),
        order("unknown", &json!("Nobody"), 7.0),
    ];
    publish(&broker, "orders", &orders).await;
    settled(&gateway, "voucherify-points", 2, 1).await;
    assert_eq!(dead(&gateway).await, [owned(("unknown", "rejected"))]);
    let asked = api.asked();
    let throttled = asked.iter().filter(|request| request.status == 429).count();
    assert_eq!(throttled, 1, "a 429 stops the upstream, until the time it names");
    let taken: Vec<&Recorded> = asked.iter().filter(|request| request.status == 200).collect();
    assert_eq!(taken[0].method, "POST");
    assert_eq!(taken[0].body, r#"{"points":12,"reason":"Order o-1","source_id":"o-1"}"#);
    assert_eq!(header(taken[0], "content-type"), "application/json");
    assert_eq!(header(taken[0], "idempotency-key"), "", "none is documented");
    assert_eq!(body(taken[1])["source_id"], "o-2", "in the order of the card's events");
    assert!(!gateway.log().contains("canary"), "no key in the log");
}

/// <https://docs.talon.one/docs/dev/tutorials/integrating-talon-one#managing-parallel-requests>:
/// a request that runs beside another for the same profile is answered 409.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn talon_ones_409_passes_and_a_customers_sessions_stay_in_order() {
    let broker = Node::shared().await.vhost().await;
    let shop_is_busy = AtomicU32::new(2);
    let api = Product::start(move |request| {
        if header(request, "authorization") != "ApiKey-v1 canary-talon-one" {
            return answer(401, &json!({ "message": "Invalid API key" }));
        }
        let session = body(request)["customerSession"].clone();
        if request.method != "PUT" || session["cartItems"][0]["sku"] != "VM" {
            return answer(400, &json!({ "message": "Bad request" }));
        }
        // The shop's own requests for c-1 are under way when the first two of ours arrive.
        let busy = session["profileId"] == "c-1"
            && shop_is_busy
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                .is_ok();
        match busy {
            true => answer(409, &json!({ "message": "Too many requests" })),
            false => answer(200, &json!({ "effects": [] })),
        }
    })
    .await;
    let url = api.url();
    let variables = [("TALON_ONE_URL", &*url), ("TALON_ONE_API_KEY", "canary-talon-one")];
    let gateway = run(&broker, "talon-one", &variables, "talon-one-sessions").await;
    let order = |id: &str, customer: &str| {
        let items =
            json!([{ "name": "Vegan", "sku": "VM", "quantity": 2, "price": 9.5, "oven": 3 }]);
        let data = json!({ "orderId": id, "customerId": customer, "items": items });
        event("order.confirmed.v1", id, &data)
    };
    publish(&broker, "orders", &[order("o-1", "c-1"), order("o-2", "c-1"), order("o-3", "c-2")])
        .await;
    settled(&gateway, "talon-one-sessions", 3, 0).await;
    let ours = story(&api, |request| Value::from(request.path.clone()));
    let of_c1: Vec<(&str, u16)> = ours
        .iter()
        .filter_map(|(path, status)| Some((path.strip_prefix("/v2/customer_sessions/")?, *status)))
        .filter(|(session, _)| *session != "o-3")
        .collect();
    assert_eq!(of_c1, [("o-1", 409), ("o-1", 409), ("o-1", 200), ("o-2", 200)]);
    let asked = api.asked();
    let last = asked.iter().rfind(|request| request.path.ends_with("/o-1")).expect("asked");
    let expected = json!({
        "customerSession": {
            "profileId": "c-1", "state": "closed",
            "cartItems": [{ "name": "Vegan", "sku": "VM", "quantity": 2, "price": 9.5 }],
        },
        "responseContent": [],
    });
    assert_eq!(body(last), expected);
}

/// <https://developers.hubspot.com/docs/developer-tooling/platform/usage-guidelines>: a 429 names
/// the policy that was exceeded; the daily one lasts until midnight.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hubspots_two_limits_are_told_apart_and_a_multi_status_hides_no_error() {
    let broker = Node::shared().await.vhost().await;
    let (first, locked) = (AtomicU32::new(1), AtomicU32::new(1));
    let once = |left: &AtomicU32| left.swap(0, Ordering::SeqCst) == 1;
    let api = Product::start(move |request| {
        let limit = |policy: &str| {
            let message = format!("You have reached your {} limit.", policy.to_lowercase());
            json!({ "status": "error", "message": message, "errorType": "RATE_LIMIT",
                    "policyName": policy })
        };
        if header(request, "authorization") != "Bearer canary-hubspot" {
            return answer(
                401,
                &json!({ "status": "error", "category": "INVALID_AUTHENTICATION" }),
            );
        }
        if once(&first) {
            // A tenth of the real period, which is 10,000.
            let interval = "X-HubSpot-RateLimit-Interval-Milliseconds";
            return answer_with(429, interval, "1000", &limit("TEN_SECONDLY_ROLLING"));
        }
        let input = body(request)["inputs"][0].clone();
        match input["id"].as_str().unwrap_or("") {
            "daily@example.com" => answer(429, &limit("DAILY")),
            "locked@example.com" if once(&locked) => answer(423, &json!({ "status": "error" })),
            "invalid" => {
                let error = json!({ "status": "error", "category": "VALIDATION_ERROR",
                    "context": { "objectWriteTraceId": [input["objectWriteTraceId"]] } });
                let body = json!({ "status": "COMPLETE", "results": [], "numErrors": 1,
                    "errors": [error] });
                answer(207, &body)
            }
            _ => answer(200, &json!({ "status": "COMPLETE", "results": [{ "id": "512" }] })),
        }
    })
    .await;
    let url = api.url();
    let variables = [("HUBSPOT_URL", &*url), ("HUBSPOT_TOKEN", "canary-hubspot")];
    let gateway = run(&broker, "hubspot", &variables, "hubspot-contacts").await;
    let customer = |email: &str| {
        let data = json!({ "email": email, "firstName": "Ana", "lastName": "Pereira" });
        event("customer.registered.v1", email, &data)
    };
    let customers = ["ana@example.com", "invalid", "locked@example.com"].map(customer);
    publish(&broker, "customers", &customers).await;
    settled(&gateway, "hubspot-contacts", 2, 1).await;
    assert_eq!(dead(&gateway).await, [owned(("invalid", "rejected"))]);
    let asked = api.asked();
    assert!(asked[1].at_ms >= asked[0].at_ms + 900, "the period it named has passed");
    let ana = asked.iter().find(|r| r.status == 200).expect("one was taken");
    assert_eq!(ana.path, "/crm/objects/2026-03/contacts/batch/upsert");
    let input = &body(ana)["inputs"][0];
    assert_eq!(input["idProperty"], "email");
    assert_eq!(input["properties"]["lastname"], "Pereira");
    assert_eq!(input["objectWriteTraceId"].as_str().map(str::len), Some(36), "the key, a UUID");

    publish(&broker, "customers", &[customer("daily@example.com")]).await;
    let paused = eventually("HubSpot is paused", IN_TIME, || async {
        let status = gateway.get("/api/v1/upstreams/hubspot").await;
        status["paused_until"].as_str().map(str::to_owned)
    })
    .await;
    let soon = Timestamp(i64::try_from(now().as_millis()).expect("before 292 million"));
    assert!(paused > rfc3339(soon.after(Duration::from_secs(3_500))), "{paused}: in an hour");
    assert_eq!(gateway.count("hubspot-contacts", "pending").await, 1, "it waits, and is not dead");
}

/// <https://www.twilio.com/docs/sendgrid/api-reference/how-to-use-the-sendgrid-v3-api/rate-limits>:
/// no request is served until `X-RateLimit-Reset`, in seconds of Unix time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sendgrid_gets_the_mail_once_its_period_has_ended() {
    let broker = Node::shared().await.vhost().await;
    let reset = Mutex::new(None);
    let blocked = AtomicU32::new(1);
    let api = Product::start(move |request| {
        let error = |message: &str| json!({ "errors": [{ "field": null, "message": message }] });
        if header(request, "authorization") != "Bearer SG.canary-sendgrid" {
            return answer(401, &error("authorization required"));
        }
        if header(request, "accept") != "application/json" {
            return answer(406, &error("missing Accept header"));
        }
        let reset = reset.lock().get_or_insert_with(|| now().as_secs() + 4).to_owned();
        if now().as_secs() < reset {
            let body = error("too many requests");
            return answer_with(429, "X-RateLimit-Reset", &reset.to_string(), &body);
        }
        if blocked.swap(0, Ordering::SeqCst) == 1 {
            return answer(403, &error("too many bad requests"));
        }
        let mail = body(request);
        let to = mail["personalizations"][0]["to"][0]["email"].as_str().unwrap_or("");
        match to.contains('@') && mail["content"][0]["value"].is_string() {
            true => answer_with(202, "X-Message-Id", "m-1", &Value::Null),
            false => answer(400, &error("Does not contain a valid address.")),
        }
    })
    .await;
    let url = api.url();
    let variables = [("SENDGRID_URL", &*url), ("SENDGRID_API_KEY", "SG.canary-sendgrid")];
    let gateway = run(&broker, "sendgrid", &variables, "sendgrid-confirmations").await;
    let order = |id: &str, email: &str| {
        let data = json!({ "orderId": id, "customer": { "name": "Ana", "email": email } });
        event("order.confirmed.v1", id, &data)
    };
    publish(&broker, "orders", &[order("o-1", "ana@example.com"), order("o-2", "nowhere")]).await;
    settled(&gateway, "sendgrid-confirmations", 1, 1).await;
    assert_eq!(dead(&gateway).await, [owned(("o-2", "rejected"))]);
    let mut statuses = api.statuses();
    let throttled = statuses.iter().filter(|status| **status == 429).count();
    assert!((1..=2).contains(&throttled), "asked before the period's end: {statuses:?}");
    statuses.retain(|status| *status != 429);
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 400, 403]);
    let asked = api.asked();
    let mail = asked.iter().find(|request| request.status == 202).expect("it was taken");
    assert_eq!((&*mail.method, &*mail.path), ("POST", "/v3/mail/send"));
    let mail = body(mail);
    assert_eq!(mail["from"]["email"], "orders@example.com");
    assert_eq!(mail["subject"], "Your order o-1 is confirmed");
    assert_eq!(mail["custom_args"], json!({ "order": "o-1", "event": "o-1" }));
}

/// The client credentials flow: the token answer holds no `expires_in`. sObject Collections: 200
/// whatever became of the records.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn salesforces_200_hides_no_failure_and_a_token_without_an_end_is_renewed_when_refused() {
    let broker = Node::shared().await.vhost().await;
    let (tokens, locked, limited) = (AtomicU32::new(0), AtomicU32::new(1), AtomicU32::new(1));
    let once = |left: &AtomicU32| left.swap(0, Ordering::SeqCst) == 1;
    let api = Product::start(move |request| {
        if request.path == "/services/oauth2/token" {
            let form = form(request);
            let field = |name: &str| form.get(name).map_or("", String::as_str);
            let shown = (field("grant_type"), field("client_id"), field("client_secret"));
            if shown != ("client_credentials", "consumer", "canary-salesforce") {
                return answer(400, &json!({ "error": "invalid_client_id" }));
            }
            let n = tokens.fetch_add(1, Ordering::SeqCst) + 1;
            let token = json!({
                "access_token": format!("00D-token-{n}"), "signature": "s", "scope": "api",
                "instance_url": "https://example.my.salesforce.com", "id": "https://login/id",
                "token_type": "Bearer", "issued_at": "1700000000000",
            });
            return answer(200, &token);
        }
        let record = body(request)["records"][0].clone();
        let problem = |code: &str| json!([{ "message": code, "errorCode": code }]);
        // The session of the first token has ended when the second customer comes.
        let latest = format!("Bearer 00D-token-{}", tokens.load(Ordering::SeqCst));
        let ended = record["Customer_Id__c"] != "c-1" && latest.ends_with("-1");
        if header(request, "authorization") != latest || ended {
            return answer(401, &problem("INVALID_SESSION_ID"));
        }
        let saved = |success: bool, errors: Value| {
            json!([{ "id": "003", "success": success, "errors": errors, "created": success }])
        };
        let failed = |code: &str| {
            saved(false, json!([{ "statusCode": code, "message": code, "fields": [] }]))
        };
        match record["Customer_Id__c"].as_str().unwrap_or("") {
            "c-2" if once(&locked) => answer(200, &failed("UNABLE_TO_LOCK_ROW")),
            "c-3" => answer(200, &failed("REQUIRED_FIELD_MISSING")),
            "c-4" if once(&limited) => answer(403, &problem("REQUEST_LIMIT_EXCEEDED")),
            "c-5" => answer(403, &problem("INSUFFICIENT_ACCESS")),
            _ => answer(200, &saved(true, json!([]))),
        }
    })
    .await;
    let url = api.url();
    let variables = [
        ("SALESFORCE_URL", &*url),
        ("SALESFORCE_CLIENT_ID", "consumer"),
        ("SALESFORCE_CLIENT_SECRET", "canary-salesforce"),
    ];
    let gateway = run(&broker, "salesforce", &variables, "salesforce-contacts").await;
    let customer = |id: &str| {
        let data = json!({ "customerId": id, "email": "ana@example.com", "firstName": "Ana",
            "lastName": "Pereira" });
        event("customer.registered.v1", id, &data)
    };
    publish(&broker, "customers", &[customer("c-1")]).await;
    settled(&gateway, "salesforce-contacts", 1, 0).await;
    publish(&broker, "customers", &["c-2", "c-3", "c-4", "c-5"].map(customer)).await;
    settled(&gateway, "salesforce-contacts", 3, 2).await;
    let mut dead = dead(&gateway).await;
    dead.sort_unstable();
    assert_eq!(dead, [owned(("c-3", "rejected")), owned(("c-5", "rejected"))]);

    let about = |request: &Recorded| body(request)["records"][0]["Customer_Id__c"].clone();
    let story = story(&api, about);
    let of = |id: &str| -> Vec<u16> {
        story.iter().filter(|(of, _)| of == id).map(|(_, status)| *status).collect()
    };
    assert_eq!(of("").len(), 2, "two tokens: one at the start, one when it was refused");
    assert_eq!(of("c-1"), [200]);
    assert_eq!(of("c-2").iter().filter(|status| **status == 200).count(), 2, "locked, then saved");
    assert_eq!(of("c-4").iter().filter(|status| **status == 403).count(), 1, "limited once");
    let asked = api.asked();
    let first = asked.iter().find(|request| about(request) == "c-1").expect("asked");
    assert_eq!(first.method, "PATCH");
    assert_eq!(first.path, "/services/data/v67.0/composite/sobjects/Contact/Customer_Id__c");
    let expected = json!({ "attributes": { "type": "Contact" }, "Customer_Id__c": "c-1",
        "FirstName": "Ana", "LastName": "Pereira", "Email": "ana@example.com" });
    assert_eq!(body(first), json!({ "allOrNone": true, "records": [expected] }));
    assert!(!gateway.log().contains("canary"), "no secret in the log");
}

/// <https://www.twilio.com/docs/api/errors/20429>: a 429 is never processed. Of a 500 nothing of
/// the kind is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twilio_gets_a_form_and_only_what_was_surely_not_sent_is_sent_again() {
    let broker = Node::shared().await.vhost().await;
    let busy = AtomicU32::new(1);
    let api = Product::start(move |request| {
        let error = |status: u16, code: u32| {
            answer(status, &json!({ "code": code, "status": status, "message": "no" }))
        };
        let form = form(request);
        let field = |name: &str| form.get(name).map_or("", String::as_str);
        // SKtest:canary-twilio
        if header(request, "authorization") != "Basic U0t0ZXN0OmNhbmFyeS10d2lsaW8=" {
            return error(401, 20003);
        }
        if header(request, "content-type") != "application/x-www-form-urlencoded" {
            return error(400, 21604);
        }
        if busy.swap(0, Ordering::SeqCst) == 1 {
            return error(429, 20429);
        }
        match field("To") {
            "+14155552671" => answer(201, &json!({ "sid": "SM1", "status": "accepted" })),
            "+14155550500" => error(500, 20500),
            _ => error(400, 21211),
        }
    })
    .await;
    let url = api.url();
    let gateway = run(&broker, "twilio", &twilio(&url), "twilio-messages").await;
    let sms = |id: &str, to: &str| {
        let data = json!({ "to": to, "text": "Für 2 & mehr: 50 % + Eis" });
        event("notification.sms.v1", id, &data)
    };
    let messages =
        [sms("sent", "+14155552671"), sms("unclear", "+14155550500"), sms("wrong", "nobody")];
    publish(&broker, "notifications", &messages).await;
    settled(&gateway, "twilio-messages", 1, 2).await;
    let mut dead = dead(&gateway).await;
    dead.sort_unstable();
    assert_eq!(dead, [owned(("unclear", "rejected")), owned(("wrong", "rejected"))]);
    let mut statuses = api.statuses();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 400, 429, 500], "the 429 again, the 500 not");
    let asked = api.asked();
    let sent = asked.iter().find(|request| request.status == 201).expect("it was taken");
    assert_eq!(sent.path, "/2010-04-01/Accounts/ACtest/Messages.json");
    assert_eq!(
        sent.body,
        "To=%2B14155552671&MessagingServiceSid=MG00000000000000000000000000000000\
         &Body=F%C3%BCr+2+%26+mehr%3A+50+%25+%2B+Eis"
    );
}

/// <https://shopify.dev/docs/api/admin-rest/usage/rate-limits>: a bucket of 40 that leaks 2 a
/// second; who overfills it is told in `Retry-After` when to come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shopifys_bucket_may_be_full_and_every_note_gets_there_when_it_has_leaked() {
    const ORDERS: u64 = 6;
    const BUCKET: f64 = 40.0;
    let broker = Node::shared().await.vhost().await;
    // The level, and when it was that. Another process of the same app has just filled it.
    let bucket = Mutex::new(None);
    let api = Product::start(move |request| {
        if header(request, "x-shopify-access-token") != "canary-shopify" {
            return answer(401, &json!({ "errors": "[API] Invalid API key or access token" }));
        }
        let at = request.at_ms as f64 / 1000.0;
        let mut bucket = bucket.lock();
        let (level, then) = bucket.unwrap_or((BUCKET + 1.5, at));
        let level = f64::max(level - 2.0 * (at - then), 0.0);
        *bucket = Some((level, at));
        if level + 1.0 > BUCKET {
            return answer_with(429, "Retry-After", "2.0", &json!({ "errors": "Exceeded" }));
        }
        *bucket = Some((level + 1.0, at));
        let order = body(request)["order"].clone();
        let path = format!("/admin/api/2026-04/orders/{}.json", order["id"]);
        match request.method == "PUT" && request.path == path && order["id"] != 404 {
            true => answer(200, &json!({ "order": order })),
            false => answer(404, &json!({ "errors": "Not Found" })),
        }
    })
    .await;
    let url = api.url();
    let gateway = run(&broker, "shopify", &shopify(&url), "shopify-notes").await;
    let delivered = |id: u64| {
        let data = json!({ "shopifyOrderId": id, "deliveredAt": "2026-03-01T19:42:00Z" });
        event("order.delivered.v1", &id.to_string(), &data)
    };
    let mut orders: Vec<Message> = (450_789_469..).take(ORDERS as usize).map(delivered).collect();
    orders.push(delivered(404));
    orders.push(event("order.delivered.v1", "elsewhere", &json!({ "deliveredAt": "now" })));
    publish(&broker, "orders", &orders).await;
    settled(&gateway, "shopify-notes", ORDERS, 1).await;
    assert_eq!(dead(&gateway).await, [owned(("404", "rejected"))]);
    let asked = api.asked();
    assert_eq!(asked[0].status, 429, "somebody else had filled it");
    assert!(asked[1].at_ms >= asked[0].at_ms + 1_950, "the two seconds have passed");
    let first = asked.iter().find(|r| r.path.ends_with("/450789469.json") && r.status == 200);
    assert_eq!(
        first.expect("it was taken").body,
        r#"{"order":{"id":450789469,"note":"Delivered at 2026-03-01T19:42:00Z"}}"#
    );
}

/// <https://docs.slack.dev/apis/web-api/rate-limits>: one message a second in each channel, and 429
/// with `Retry-After` beyond. <https://api.slack.com/methods/chat.postMessage>: errors come with a
/// 200.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slacks_200_hides_no_error_and_one_channels_limit_holds_up_no_other() {
    let broker = Node::shared().await.vhost().await;
    let (busy, failing) = (AtomicU32::new(1), AtomicU32::new(1));
    let once = |left: &AtomicU32| left.swap(0, Ordering::SeqCst) == 1;
    let api = Product::start(move |request| {
        let failed = |error: &str| answer(200, &json!({ "ok": false, "error": error }));
        if header(request, "authorization") != "Bearer xoxb-canary-slack" {
            return failed("invalid_auth");
        }
        if (&*request.method, &*request.path) != ("POST", "/api/chat.postMessage") {
            return failed("unknown_method");
        }
        let message = body(request);
        match message["channel"].as_str().unwrap_or("") {
            "C-busy" if once(&busy) => {
                answer_with(429, "Retry-After", "3", &json!({ "ok": false }))
            }
            "C-free" if once(&failing) => failed("internal_error"),
            "C-missing" => failed("channel_not_found"),
            channel => answer(200, &json!({ "ok": true, "channel": channel, "ts": "1.1" })),
        }
    })
    .await;
    let url = api.url();
    let gateway = run(&broker, "slack", &slack(&url), "slack-messages").await;
    let message = |id: &str, channel: &str| {
        event("notification.chat.v1", id, &json!({ "channel": channel, "text": id }))
    };
    let messages = [
        message("b-1", "C-busy"),
        message("b-2", "C-busy"),
        message("f-1", "C-free"),
        message("f-2", "C-free"),
        message("m-1", "C-missing"),
    ];
    publish(&broker, "notifications", &messages).await;
    settled(&gateway, "slack-messages", 4, 1).await;
    assert_eq!(dead(&gateway).await, [owned(("m-1", "rejected"))]);
    let in_channel = |channel: &str| -> Vec<Recorded> {
        let mut asked = api.asked();
        asked.retain(|request| body(request)["channel"] == channel);
        asked
    };
    let texts = |asked: &[Recorded]| -> Vec<String> {
        asked.iter().map(|r| body(r)["text"].as_str().unwrap_or("").to_owned()).collect()
    };
    let (busy, free) = (in_channel("C-busy"), in_channel("C-free"));
    assert_eq!(texts(&busy), ["b-1", "b-1", "b-2"], "in order, the refused one first");
    assert_eq!(texts(&free), ["f-1", "f-1", "f-2"]);
    assert!(busy[1].at_ms >= busy[0].at_ms + 2_950, "the channel was left alone as told");
    assert!(free[2].at_ms < busy[1].at_ms, "and the other one was not");
    for channel in [&busy, &free] {
        let apart = channel.windows(2).all(|pair| pair[1].at_ms >= pair[0].at_ms + 950);
        assert!(apart, "one a second");
    }
}

/// What Twilio's configuration needs.
pub(crate) fn twilio(url: &str) -> [(&'static str, &str); 6] {
    [
        ("TWILIO_URL", url),
        ("TWILIO_ACCOUNT_SID", "ACtest"),
        ("TWILIO_API_KEY_SID", "SKtest"),
        ("TWILIO_API_KEY_SECRET", "canary-twilio"),
        ("TWILIO_AUTH_TOKEN", "canary-auth-token"),
        ("TWILIO_PUBLIC_URL", "https://hooks.example.com"),
    ]
}

/// What Shopify's configuration needs.
pub(crate) fn shopify(url: &str) -> [(&'static str, &str); 3] {
    [
        ("SHOPIFY_URL", url),
        ("SHOPIFY_ACCESS_TOKEN", "canary-shopify"),
        ("SHOPIFY_CLIENT_SECRET", "canary-client-secret"),
    ]
}

/// What Slack's configuration needs.
pub(crate) fn slack(url: &str) -> [(&'static str, &str); 3] {
    [
        ("SLACK_URL", url),
        ("SLACK_BOT_TOKEN", "xoxb-canary-slack"),
        ("SLACK_SIGNING_SECRET", "canary-signing-secret"),
    ]
}

fn owned((event, reason): (&str, &str)) -> (String, String) {
    (event.to_owned(), reason.to_owned())
}
