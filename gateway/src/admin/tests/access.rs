//! Who may ask, and from where.

use super::world::{OPERATE, READ, guarded, open};

const EVENT: &str = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;

#[tokio::test]
async fn without_tokens_everything_is_answered_on_loopback() {
    let admin = open().await;
    for path in ["/healthz", "/readyz", "/metrics", "/api/v1/routes", "/api/v1/deliveries"] {
        assert_eq!(admin.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn s8_with_tokens_only_health_goes_without_one() {
    let admin = guarded().await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(admin.get(path).await.status, 200, "{path}");
    }
    for path in ["/metrics", "/api/v1/routes", "/api/v1/deliveries/1", "/nowhere", "/"] {
        let said = admin.get(path).await;
        assert_eq!(said.status, 401, "{path}");
        assert_eq!(said.header("www-authenticate"), "Bearer");
        assert_eq!(said.header("content-type"), "application/problem+json");
    }
    // A longer way to the same place opens nothing.
    for path in ["/healthz/../metrics", "//metrics", "/healthz?/metrics", "/healthz/metrics"] {
        let said = admin.get(path).await;
        assert!(!said.body.contains("tidegate_build_info"), "{path}: {said:?}");
    }
}

#[tokio::test]
async fn a_wrong_token_is_none() {
    let admin = guarded().await;
    let longer = format!("{READ}x");
    for given in ["", "x", &READ[1..], &longer, &READ.to_uppercase()] {
        assert_eq!(admin.get_as("/api/v1/routes", given).await.status, 401, "`{given}`");
    }
    for given in [format!("Basic {READ}"), READ.to_owned(), format!("Bearer{READ}")] {
        let said = admin.ask("GET", "/api/v1/routes", &[("authorization", &given)], "").await;
        assert_eq!(said.status, 401, "`{given}`");
    }
    for token in [READ, OPERATE] {
        assert_eq!(admin.get_as("/api/v1/routes", token).await.status, 200);
    }
    // RFC 9110 §11.1: the scheme's case does not matter.
    let said =
        admin.ask("GET", "/metrics", &[("authorization", &format!("bearer {READ}"))], "").await;
    assert_eq!(said.status, 200);
}

#[tokio::test]
async fn to_read_is_not_to_operate() {
    let admin = guarded().await;
    let path = "/api/v1/events?exchange=orders";
    let post = async |token: &str| {
        let token = format!("Bearer {token}");
        let headers =
            [("authorization", &*token), ("content-type", "application/cloudevents+json")];
        admin.ask("POST", path, &headers, EVENT).await
    };
    let refused = post(READ).await;
    assert_eq!(refused.status, 403);
    assert!(refused.json()["detail"].as_str().unwrap().contains("dashboard"), "{refused:?}");
    assert!(admin.world.published.lock().is_empty());
    assert_eq!(post(OPERATE).await.status, 200);
    assert_eq!(admin.world.published.lock().len(), 1);
}

#[tokio::test]
async fn a_page_that_rebinds_its_name_to_this_machine_is_refused() {
    let admin = open().await;
    for path in ["/healthz", "/readyz", "/metrics", "/api/v1/routes"] {
        for host in ["evil.example", "evil.example:9090", "127.0.0.1.evil.example", "", "[::1"] {
            let said = admin.ask("GET", path, &[("host", host)], "").await;
            assert_eq!(said.status, 421, "{path} at `{host}`");
        }
        for host in ["127.0.0.1", "127.0.0.1:9090", "localhost", "LOCALHOST:1", "[::1]:9090"] {
            let said = admin.ask("GET", path, &[("host", host)], "").await;
            assert_eq!(said.status, 200, "{path} at `{host}`");
        }
    }
}

#[tokio::test]
async fn with_tokens_a_service_may_go_by_any_name() {
    let admin = guarded().await;
    let name = ("host", "tidegate.shop.svc:9090");
    assert_eq!(admin.ask("GET", "/readyz", &[name], "").await.status, 200);
    let token = format!("Bearer {READ}");
    let headers = [name, ("authorization", &*token)];
    assert_eq!(admin.ask("GET", "/metrics", &headers, "").await.status, 200);
}

#[tokio::test]
async fn other_web_pages_are_refused_whatever_they_ask() {
    for admin in [open().await, guarded().await] {
        let token = format!("Bearer {OPERATE}");
        for origin in ["https://evil.example", "http://127.0.0.1:1", "null", ""] {
            let headers = [("origin", origin), ("authorization", &*token)];
            for path in ["/healthz", "/api/v1/routes"] {
                let said = admin.ask("GET", path, &headers, "").await;
                assert_eq!(said.status, 403, "{path} from `{origin}`");
            }
        }
        let own = format!("http://{}", admin.address);
        let headers = [("origin", &*own), ("authorization", &*token)];
        assert_eq!(admin.ask("GET", "/api/v1/routes", &headers, "").await.status, 200);
    }
}

#[tokio::test]
async fn a_form_of_another_page_cannot_post() {
    let admin = open().await;
    let path = "/api/v1/events?exchange=orders";
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let said = admin.ask("POST", path, &[("content-type", content_type)], EVENT).await;
        assert_eq!(said.status, 415, "{content_type}");
    }
    assert_eq!(admin.ask("POST", path, &[], EVENT).await.status, 415, "no type at all");
    assert!(admin.world.published.lock().is_empty());
}

#[tokio::test]
async fn tokens_are_those_of_the_configuration_in_force() {
    let admin = guarded().await;
    assert_eq!(admin.get_as("/metrics", READ).await.status, 200);
    let new = "another-token-0123456789";
    admin.world.set_tokens(&format!("dashboard: {{ token: {new}, role: read }}"));
    for gone in [READ, OPERATE] {
        assert_eq!(admin.get_as("/metrics", gone).await.status, 401);
    }
    assert_eq!(admin.get_as("/metrics", new).await.status, 200);
}

#[tokio::test]
async fn s8_every_verb_takes_the_role_operate() {
    let admin = guarded().await;
    for (method, pattern, _) in &super::super::endpoint::TABLE {
        let path = pattern.replace("{name}", "award-points").replace("{id}", "1");
        let token = format!("Bearer {READ}");
        let said = admin.ask(method.as_str(), &path, &[("authorization", &*token)], "").await;
        match *method {
            http::Method::POST => assert_eq!(said.status, 403, "{path}"),
            _ => assert!([200, 404].contains(&said.status), "{path}: {said:?}"),
        }
    }
    assert!(admin.world.queue.routes.lock().iter().all(|route| !route.paused));
}
