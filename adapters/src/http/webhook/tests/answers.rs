//! What senders hear.

use super::*;

fn responding(status: u16, headers: &[(&str, &str)], body: Option<&str>) -> WebhookConfig {
    let headers =
        headers.iter().map(|(name, value)| ((*name).to_owned(), Template::compile(value).unwrap()));
    let body = body.map(|body| Expression::compile(body).unwrap());
    WebhookConfig {
        respond: Some(RespondConfig { status, headers: headers.collect(), body }),
        ..config()
    }
}

#[test]
fn a_repeat_hears_the_same_and_that_it_is_one() {
    let (new, repeat) = (Accepted::Pending(DeliveryId(2)), Accepted::Duplicate(DeliveryId(1)));
    let table = [
        (vec![new], None),
        (vec![repeat], Some("true")),
        (vec![repeat, repeat], Some("true")),
        (vec![repeat, new], None),
        (vec![Accepted::Filtered], None),
        (vec![Accepted::Dead(DeliveryId(1))], None),
        (vec![], None),
    ];
    for (accepted, expected) in table {
        let reading = read_as(&config(), &typed(JSON, "1"), &with_id("m"));
        let answer = reading.reply.answer(&accepted);
        assert_eq!(
            (answer.status, &answer.body[..]),
            (StatusCode::ACCEPTED, &br#"{"id":"m"}"#[..])
        );
        let header = answer.headers.get(DUPLICATE).map(|value| value.to_str().unwrap());
        assert_eq!(header, expected, "{accepted:?}");
    }
}

#[test]
fn respond_has_the_last_word() {
    let text = ("Content-Type", "text/plain");
    let xml = ("content-type", "text/xml");
    let json = ("Content-Type", "application/problem+json");
    let echo = Some(".body.challenge");
    let table = [
        (200, vec![], None, JSON, r#"{"id":"m"}"#),
        (200, vec![], echo, JSON, r#""c-1""#),
        (200, vec![text], echo, "text/plain", "c-1"),
        (201, vec![xml], Some("\"<Response/>\""), "text/xml", "<Response/>"),
        (200, vec![json], echo, "application/problem+json", r#""c-1""#),
        (200, vec![text], Some("{n: .body.n}"), "text/plain", r#"{"n":12.50}"#),
        (
            200,
            vec![],
            Some("{ok: true, route: $route}"),
            JSON,
            r#"{"ok":true,"route":"loyalty-webhooks"}"#,
        ),
        (204, vec![], None, "", ""),
    ];
    for (status, headers, body, content_type, expected) in table {
        let config = responding(status, &headers, body);
        let request = typed(JSON, r#"{"challenge": "c-1", "n": 12.50}"#);
        let reading = read_as(&config, &request, &with_id("m"));
        let expected = (status, content_type.to_owned(), expected.to_owned());
        assert_eq!(answered(reading), expected, "{headers:?} {body:?}");
    }
}

#[test]
fn respond_sets_headers_by_template() {
    let headers = [("X-Seen", "n={.body.n}"), ("X-None", "{.body.none}")];
    let config = responding(200, &headers, None);
    let reading = read(&config, &typed(JSON, r#"{"n": 12.50}"#));
    let answer = reading.reply.answer(&pending(1));
    assert_eq!(answer.headers["x-seen"], "n=12.50");
    assert!(!answer.headers.contains_key("x-none"), "a lone null leaves it out");
}

#[test]
fn a_respond_that_fails_is_the_usual_answer_under_its_status() {
    let table = [
        (vec![], Some("error(\"secret\")")),
        (vec![("x-a", "{.body.none.x}"), ("content-type", "text/plain")], None),
        (vec![("x-a", "a{.body.line}")], Some("1")),
        (vec![], Some(".body.n[]")),
    ];
    for (headers, body) in table {
        let config = responding(201, &headers, body);
        let request = typed(JSON, r#"{"none": 1, "line": "a\r\nb", "n": [1, 2]}"#);
        let reading = read_as(&config, &request, &with_id("m"));
        assert!(reading.arrivals[0].event.is_ok(), "the event is safe");
        let expected = (201, JSON.to_owned(), r#"{"id":"m"}"#.to_owned());
        assert_eq!(answered(reading), expected, "{headers:?} {body:?}");
    }
}

#[test]
fn a_respond_that_cannot_work_is_refused_with_its_key() {
    let table = [
        (responding(500, &[], None), "respond.status"),
        (responding(302, &[], None), "respond.status"),
        (responding(20, &[], None), "respond.status"),
        (responding(204, &[], Some("1")), "respond.body"),
        (responding(200, &[("a b", "1")], None), "respond.headers.a b"),
        (responding(200, &[("Content-Length", "1")], None), "respond.headers.Content-Length"),
        (responding(200, &[("x", "a\nb")], None), "respond.headers.x"),
    ];
    for (config, key) in table {
        let error = Hook::new("r".into(), &config).unwrap_err();
        assert_eq!(error.key, key, "{error}");
    }
}

#[test]
fn a_hook_tells_its_route_and_its_path() {
    let hook = hook(&config());
    assert_eq!((&**hook.route(), hook.path()), ("loyalty-webhooks", "/hooks/loyalty"));
    assert!(hook.verify(&typed(JSON, "1"), NOW).is_ok());
}
