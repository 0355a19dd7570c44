//! What holds of every event, wherever it came from.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value};
use tidegate_adapters::{
    Data, Event,
    event::{
        EventMapping, Written,
        attribute::{is_json, media_type},
        check_json, message,
    },
};

use super::NOW;

/// Asserts that `event` is one, that the queue gives it back, and that each envelope it can be
/// written in says the same of it.
pub(super) fn assert_sound(event: &Event) {
    assert_eq!(event.check(), Ok(()), "{event:?}");
    assert_eq!(check_json(&event.to_json()), Ok(()), "{event:?}");
    let stored = Event::decode(&event.encode_attributes(), event.data_bytes());
    assert_eq!(stored.as_ref(), Ok(event));
    assert_structured(event);
    assert_binary(event);
    assert_metadata_data(event);
}

/// Reads `written` as a consumer does.
fn read_back(written: Written) -> Result<Event, String> {
    let headers: Map<String, Value> =
        written.headers.into_iter().map(|(name, value)| (name, value.into())).collect();
    let message = message::Message {
        body: written.body,
        content_type: written.content_type,
        content_encoding: written.content_encoding,
        headers,
        routing_key: "other".to_owned(),
        ..message::Message::default()
    };
    let arrival = message::read(&message, "r", &EventMapping::default(), NOW);
    arrival.event.map_err(|invalid| invalid.why)
}

/// What an envelope keeps: all but the trace, which travels beside it.
fn essence(event: &Event) -> Event {
    Event { traceparent: None, hops: 0, ..event.clone() }
}

/// How many members a reader takes is bounded, and an event may have more.
fn is_small(event: &Event) -> bool {
    event.extensions.len() < 200
}

fn assert_structured(event: &Event) {
    // A JSON text under another media type means its text there: other data than this.
    let foreign = event.datacontenttype.as_deref().is_some_and(|kind| !is_json(kind));
    let text = matches!(&event.data, Data::Json(json) if json.trim_ascii().starts_with(b"\""));
    if foreign && text || !is_small(event) {
        return;
    }
    let back = read_back(event.write_structured()).expect("what we write can be read");
    assert_eq!(essence(&back), trimmed(essence(event)));
}

/// JSON data without the space around it, which is none of its value.
fn trimmed(mut event: Event) -> Event {
    if let Data::Json(json) = &event.data {
        event.data = Data::Json(json.slice_ref(json.trim_ascii()));
    }
    event
}

fn assert_binary(event: &Event) {
    let kind = event.datacontenttype.as_deref().unwrap_or_default();
    // An event whose data is an event cannot be told from that one, in any binding.
    if media_type(kind).to_ascii_lowercase().starts_with("application/cloudevents") {
        return;
    }
    let back = match read_back(event.write_binary()) {
        Ok(back) => back,
        // Data that says it is JSON and came as Base64 need not be any.
        Err(why) => {
            let odd = matches!(&event.data, Data::Binary(data) if check_json(data).is_err());
            assert!(odd && (kind.is_empty() || is_json(kind)), "{why}: {event:?}");
            return;
        }
    };
    assert_eq!(back.data_bytes(), event.data_bytes());
    let texts = |event: &Event| -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        event.extensions.iter().map(|(name, value)| (name.clone(), text(value))).collect()
    };
    assert_eq!(texts(&back), texts(event));
    let rest = |event: &Event| Event {
        extensions: BTreeMap::new(),
        datacontenttype: None,
        data: Data::Absent,
        ..essence(event)
    };
    assert_eq!(rest(&back), rest(event));
    if let Some(kind) = &event.datacontenttype {
        assert_eq!(back.datacontenttype.as_ref(), Some(kind));
    }
}

fn assert_metadata_data(event: &Event) {
    let mut expected = trimmed(essence(event));
    // Names that mean something else among metadata: one is the time where there is none.
    let timed = event.time.is_none() && event.extensions.contains_key("timestamp");
    let version = expected.extensions.get_mut("version");
    let odd = version.as_ref().is_some_and(|version| version.is_boolean() || **version == "");
    if timed || odd || event.encode_attributes().len() > 60 << 10 {
        return;
    }
    if let Some(version) = version.filter(|version| version.is_number()) {
        *version = version.to_string().into();
    }
    let back = read_back(event.write_metadata_data()).expect("what we write can be read");
    if expected.time.is_none() {
        expected.time.clone_from(&back.time);
    }
    assert_eq!(essence(&back), expected);
}

/// Whether `part` lies within `whole`, byte for byte.
pub(super) fn is_part(part: &Bytes, whole: &[u8]) -> bool {
    part.is_empty() || super::find(whole, part).is_some()
}
