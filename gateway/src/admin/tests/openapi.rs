//! The description of this listener, held against what it does.

mod schema;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use tidegate_adapters::DeadReason;

use super::{
    deliveries::dead,
    routes::upstream,
    world::{Listening, READ, Said, guarded, open, pending},
};
use crate::{admin::endpoint::TABLE, app::ReloadError, queue::State};
use schema::{resolve, violations};

const EVENT: &str = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;

fn document() -> Value {
    serde_json::from_str(&crate::admin::openapi::document()).unwrap()
}

/// Every operation described: method, path, description.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let of = |(path, item): (&String, &Value)| {
        let methods = item.as_object().unwrap().iter();
        let one = |(method, operation): (&String, &Value)| {
            (method.to_uppercase(), path.clone(), operation.clone())
        };
        methods.map(one).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of).collect()
}

/// A request that succeeds on [`lively`]: path and body.
fn request(path: &str, operation: &Value) -> (String, String) {
    let name = if path.contains("upstreams") { "loyalty" } else { "award-points" };
    // A dead one is replayed and a pending one discarded; the third is looked at.
    let id = match operation["operationId"].as_str().unwrap() {
        "discardDelivery" => "2",
        _ => "1",
    };
    let mut url = path.replace("{name}", name).replace("{id}", id);
    let body = match operation["operationId"].as_str().unwrap() {
        "publishEvent" => {
            url.push_str("?exchange=orders");
            EVENT
        }
        "replayDeliveries" | "discardDeliveries" => r#"{"filter": {}}"#,
        _ => "",
    };
    (url, body.to_owned())
}

/// Something of everything to look at.
fn enliven(admin: &Listening) {
    let mut reply = admin.world.queue.routes.lock()[0].clone();
    reply.name = "award-points/reply".into();
    admin.world.queue.routes.lock().push(reply);
    *admin.world.upstreams.lock() = vec![upstream("loyalty"), upstream("mail")];
    let mut invalid = super::deliveries::changed(dead(3, DeadReason::Invalid), |_, event| {
        event.id.clear();
        event.extensions.insert("routing_key".to_owned(), "x".into());
    });
    invalid.raw = Some(b"\xff[".as_slice().into());
    *admin.world.queue.deliveries.lock() =
        vec![invalid, pending(2), super::deliveries::tried(dead(1, DeadReason::Rejected))];
}

async fn lively() -> Listening {
    let admin = open().await;
    enliven(&admin);
    admin
}

/// What an answer has that is not described, or lacks.
fn undescribed(document: &Value, operation: &Value, said: &Said) -> Vec<String> {
    let status = said.status.to_string();
    let Some(response) = operation["responses"].get(&status) else {
        return vec![format!("{status} is not described: {said:?}")];
    };
    let response = resolve(document, response);
    let kind = said.header("content-type").split(';').next().unwrap().to_owned();
    let Some(media) = response["content"].get(&kind) else {
        return vec![format!("{status} as {kind} is not described")];
    };
    let body = match &*kind {
        "text/plain" => Value::from(said.body.clone()),
        _ => said.json(),
    };
    violations(document, &media["schema"], &body, &format!("{status} $"))
}

#[test]
fn what_is_served_is_described_and_what_is_described_is_served() {
    let served: BTreeSet<(String, String)> =
        TABLE.iter().map(|(method, path, _)| (method.to_string(), (*path).to_owned())).collect();
    let document = document();
    let described =
        operations(&document).into_iter().map(|(method, path, _)| (method, path)).collect();
    assert_eq!(served, described);
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let ids: BTreeSet<String> =
        operations(&document).iter().map(|(_, _, op)| op["operationId"].to_string()).collect();
    assert_eq!(ids.len(), TABLE.len(), "each has an id of its own");
}

#[test]
fn every_example_is_what_it_is_an_example_of() {
    let document = document();
    let check = |place: &str, content: &Value| {
        for (kind, media) in content.as_object().into_iter().flatten() {
            if let Some(example) = media.get("example") {
                let wrong = violations(&document, &media["schema"], example, "$");
                assert!(wrong.is_empty(), "{place} {kind}: {wrong:?}");
            }
        }
    };
    for (method, path, operation) in operations(&document) {
        let place = format!("{method} {path}");
        check(&place, &operation["requestBody"]["content"]);
        for (status, response) in operation["responses"].as_object().unwrap() {
            let response = resolve(&document, response);
            check(&format!("{place} {status}"), &response["content"]);
        }
    }
}

#[tokio::test]
async fn every_operation_answers_as_it_is_described() {
    let document = document();
    for (method, path, operation) in operations(&document) {
        let admin = lively().await;
        let (url, body) = request(&path, &operation);
        let said = match &*method {
            "GET" => admin.get(&url).await,
            _ if body == EVENT => {
                let headers = [("content-type", "application/cloudevents+json")];
                admin.ask("POST", &url, &headers, &body).await
            }
            _ => admin.post(&url, &body).await,
        };
        assert_eq!(said.status, 200, "{method} {path}: {said:?}");
        let wrong = undescribed(&document, &operation, &said);
        assert!(wrong.is_empty(), "{method} {path}: {wrong:#?}");
    }
}

#[tokio::test]
async fn every_refusal_is_described() {
    let document = document();
    for (method, path, operation) in operations(&document) {
        let (url, body) = request(&path, &operation);
        let elsewhere = url.replace("award-points", "none").replace("loyalty", "none");
        let elsewhere = elsewhere.replace("/1", "/77").replace("/2", "/77");
        let (free, guarded) = (lively().await, guarded().await);
        let read = format!("Bearer {READ}");
        let json = ("content-type", "application/json");
        for (admin, url, headers, body) in [
            (&guarded, &url, &[][..], ""),
            (&guarded, &url, &[("authorization", &*read)], ""),
            (&guarded, &url, &[("authorization", &*read), ("origin", "http://evil")], ""),
            (&free, &url, &[("host", "evil.example")], ""),
            (&free, &elsewhere, &[json], &*body),
            (&free, &format!("{url}?wrong=1"), &[json], r#"{"wrong": 1}"#),
            (&free, &url, &[("content-type", "text/plain")], "wrong"),
        ] {
            let said = admin.ask(&method, url, headers, body).await;
            let wrong = undescribed(&document, &operation, &said);
            assert!(wrong.is_empty(), "{method} {url} {headers:?}: {wrong:#?}");
        }
    }
}

#[tokio::test]
async fn what_an_operation_refuses_for_reasons_of_its_own_is_described() {
    let document = document();
    let admin = lively().await;
    let of = |path: &str| document["paths"][path]["post"].clone();
    let said = admin.post("/api/v1/deliveries/2/replay", "").await;
    let replay = of("/api/v1/deliveries/{id}/replay");
    assert_eq!((said.status, undescribed(&document, &replay, &said)), (409, vec![]));
    let invalid = super::world::load("routes: { r: { form: {} } }\n").unwrap_err();
    for (error, status) in [
        (ReloadError::Invalid(invalid), 422),
        (ReloadError::Restart(vec!["admin.listen".to_owned()]), 409),
        (ReloadError::Unavailable("stopping".to_owned()), 503),
    ] {
        *admin.world.reload.lock() = Some(Err(error));
        let said = admin.post("/api/v1/reload", "").await;
        let wrong = undescribed(&document, &of("/api/v1/reload"), &said);
        assert_eq!((said.status, wrong), (status, vec![]));
    }
    for (path, field) in [("replay", "matched"), ("discard", "matched")] {
        let body = json!({ "filter": { "limit": 2 }, "dry_run": true }).to_string();
        let said = admin.post(&format!("/api/v1/deliveries/{path}"), &body).await;
        let wrong = undescribed(&document, &of(&format!("/api/v1/deliveries/{path}")), &said);
        assert_eq!((said.json()[field].is_u64(), wrong), (true, vec![]));
    }
    admin.world.queue.status.lock().writable = false;
    admin.world.generation.lock().failed = Some("invalid".to_owned());
    let said = admin.get("/readyz").await;
    let wrong = undescribed(&document, &document["paths"]["/readyz"]["get"], &said);
    assert_eq!((said.status, wrong), (503, vec![]));
    assert_eq!(admin.world.queue.states()[1], (2, State::Pending), "none of it did anything");
}

#[tokio::test]
async fn parameters_are_those_that_are_described() {
    let admin = lively().await;
    let document = document();
    let names = |path: &str, method: &str| -> Vec<String> {
        let parameters = document["paths"][path][method]["parameters"].as_array().unwrap();
        let parameters = parameters.iter().map(|parameter| resolve(&document, parameter));
        let query = parameters.filter(|parameter| parameter["in"] == "query");
        query.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect()
    };
    let said = admin.get("/api/v1/deliveries?what=1").await.json();
    let listed = said["detail"].as_str().unwrap().split("there are ").nth(1).unwrap();
    assert_eq!(names("/api/v1/deliveries", "get"), listed.split(' ').collect::<Vec<_>>());
    assert_eq!(names("/api/v1/events", "post"), ["exchange", "key"]);
    let bulk = &document["components"]["schemas"]["Bulk"]["properties"];
    let keys = |of: &Value| -> BTreeSet<String> {
        of.as_object().unwrap_or(&Map::new()).keys().cloned().collect()
    };
    let described: BTreeSet<String> = keys(&bulk["filter"]["properties"]);
    let wrong = admin.post("/api/v1/deliveries/replay", r#"{"filter": {"what": ""}}"#).await.json();
    let listed = wrong["detail"].as_str().unwrap().split("there are ").nth(1).unwrap();
    assert_eq!(described, listed.split(' ').map(str::to_owned).collect());
}
