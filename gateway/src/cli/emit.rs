//! `tidegate emit`: one event, published through a running gateway.

use std::collections::BTreeSet;

use clap::Args;
use serde_json::Value;

use super::{Shown, client::Admin, table::print};

/// What to publish, and where to.
#[derive(Debug, Args)]
pub(super) struct EmitArgs {
    /// The event's type: order.confirmed.v1
    #[arg(value_name = "TYPE")]
    kind: String,
    /// Its data: JSON, @FILE, or - for standard input
    #[arg(long, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    data: Option<String>,
    /// The event source
    #[arg(long, default_value = "/tidegate/emit")]
    source: String,
    /// What within the source it is about
    #[arg(long)]
    subject: Option<String>,
    /// Its id; a fresh one if not given
    #[arg(long)]
    id: Option<String>,
    /// The exchange to publish to; if not given, the one that the gateway's routes are bound to
    #[arg(long)]
    exchange: Option<String>,
    /// The routing key; the type if not given
    #[arg(long)]
    key: Option<String>,
    #[command(flatten)]
    shown: Shown,
}

/// Publishes it, and prints its id.
pub(super) async fn emit(arguments: EmitArgs) -> Result<(), String> {
    let admin = Admin::new(&arguments.shown.admin)?;
    let event = event(&arguments)?;
    let exchange = match arguments.exchange {
        Some(exchange) => exchange,
        None => only_exchange(&admin.get("/api/v1/routes").await?)?,
    };
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("exchange", &exchange)
        .append_pair("key", arguments.key.as_deref().unwrap_or(&arguments.kind))
        .finish();
    let answer = admin.post_event(&query, event).await?;
    match arguments.shown.json {
        true => print(&format!("{answer}\n")),
        false => print(&format!("{}\n", answer["id"].as_str().unwrap_or_default())),
    }
}

/// The event as one CloudEvents JSON object.
fn event(arguments: &EmitArgs) -> Result<String, String> {
    let id = arguments.id.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let mut event = serde_json::json!({
        "specversion": "1.0",
        "id": id,
        "source": arguments.source,
        "type": arguments.kind,
    });
    if let Some(subject) = &arguments.subject {
        event["subject"] = subject.as_str().into();
    }
    let mut event = event.to_string();
    if let Some(given) = &arguments.data {
        let data = data(given)?;
        // Spliced in as it was given: numbers keep their text.
        event.truncate(event.len() - 1);
        event.push_str(&format!(",\"datacontenttype\":\"application/json\",\"data\":{data}}}"));
    }
    Ok(event)
}

/// JSON, from the argument, a file or standard input.
fn data(given: &str) -> Result<String, String> {
    let text = match given.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?,
        None if given == "-" => std::io::read_to_string(std::io::stdin())
            .map_err(|error| format!("standard input: {error}"))?,
        None => given.to_owned(),
    };
    tidegate_adapters::event::check_json(text.as_bytes())
        .map_err(|error| format!("--data: {error}"))?;
    Ok(text)
}

/// The exchange that `routes` are bound to, when it is one. Where there are more, guessing could
/// set off the wrong calls to a third party.
fn only_exchange(routes: &Value) -> Result<String, String> {
    let routes = routes["routes"].as_array().into_iter().flatten();
    let binds = routes.flat_map(|route| route["from"]["rabbitmq"]["bind"].as_array());
    let exchanges: BTreeSet<&str> =
        binds.flatten().filter_map(|bind| bind["exchange"].as_str()).collect();
    let names: Vec<&str> = exchanges.into_iter().collect();
    match &names[..] {
        [only] => Ok((*only).to_owned()),
        [] => Err("--exchange is missing, and no route of the gateway is bound to one".to_owned()),
        many => Err(format!("--exchange is missing; routes are bound to {}", many.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        emit: EmitArgs,
    }

    fn event_of(arguments: &[&str]) -> Result<String, String> {
        let line = ["emit"].iter().chain(arguments);
        event(&Line::try_parse_from(line).map_err(|error| error.to_string())?.emit)
    }

    #[test]
    fn an_event_has_what_was_given_and_its_data_as_it_was_given() {
        let data = r#"{"total": 12.50, "big": 12345678901234567890123}"#;
        let event = event_of(&["a.b", "--data", data, "--id", "1", "--subject", "\"x"]).unwrap();
        assert!(event.contains(data), "{event}");
        let event: Value = serde_json::from_str(&event).unwrap();
        assert_eq!((&event["id"], &event["type"]), (&json!("1"), &json!("a.b")));
        assert_eq!(
            (&event["subject"], &event["source"]),
            (&json!("\"x"), &json!("/tidegate/emit"))
        );
    }

    #[test]
    fn without_data_there_is_none_and_every_id_is_fresh() {
        let parse = |event: String| serde_json::from_str::<Value>(&event).unwrap();
        let (one, two) = (parse(event_of(&["t"]).unwrap()), parse(event_of(&["t"]).unwrap()));
        assert_eq!(one.get("data"), None);
        assert_ne!(one["id"], two["id"]);
    }

    #[test]
    fn data_comes_from_a_file_too_and_must_be_json() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[1.0]").unwrap();
        let at = format!("@{}", file.path().display());
        assert!(event_of(&["t", "--data", &at]).unwrap().contains("\"data\":[1.0]"));
        assert!(event_of(&["t", "--data", "-1"]).unwrap().contains("\"data\":-1"));
        for wrong in ["{a: 1}", "", "@/nowhere/at/all", "1 2"] {
            assert!(event_of(&["t", "--data", wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_exchange_is_guessed_only_where_there_is_one() {
        let bound = |exchanges: &[&str]| {
            let route =
                |name: &&str| json!({ "from": { "rabbitmq": { "bind": [{ "exchange": name }] } } });
            json!({ "routes": exchanges.iter().map(route).collect::<Vec<_>>() })
        };
        assert_eq!(only_exchange(&bound(&["orders", "orders"])).unwrap(), "orders");
        assert!(only_exchange(&bound(&["b", "a"])).unwrap_err().ends_with("bound to a, b"));
        assert!(only_exchange(&bound(&[])).unwrap_err().contains("no route"));
        assert!(only_exchange(&json!({ "routes": [{ "from": null }] })).is_err());
    }
}
