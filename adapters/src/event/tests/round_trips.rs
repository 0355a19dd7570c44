use super::*;
use crate::event::{EventMapping, Written, cloudevents, message};

/// A media type that goes with `data`, or none.
fn media_type_of(data: &Data) -> impl Strategy<Value = Option<String>> + use<> {
    let kinds = match data {
        Data::Binary(_) => ["image/png", "text/plain; charset=utf-8", "application/octet-stream"],
        _ => ["application/json", "Text/JSON; v=1", "application/vnd.shop+json"],
    };
    prop::option::of(prop::sample::select(kinds.to_vec()).prop_map(str::to_owned))
}

/// An event whose media type is its data's.
fn any_honest_event() -> impl Strategy<Value = Event> {
    any_event().prop_flat_map(|event| {
        media_type_of(&event.data)
            .prop_map(move |datacontenttype| Event { datacontenttype, ..event.clone() })
    })
}

/// What a consumer makes of it: an event of the same trace, which travels beside the envelope.
fn read_back(written: Written, event: &Event) -> Event {
    let trace = event.traceparent.as_ref().map(|trace| ("traceparent", trace.to_string()));
    let trace = trace.map(|(name, value)| (name.to_owned(), value));
    let headers = written.headers.into_iter().chain(trace);
    let message = message::Message {
        body: written.body,
        content_type: written.content_type,
        content_encoding: written.content_encoding,
        headers: headers.map(|(name, value)| (name, value.into())).collect(),
        routing_key: "other".to_owned(),
        ..message::Message::default()
    };
    let arrival = message::read(&message, "r", &EventMapping::default(), Timestamp(0));
    arrival.event.unwrap_or_else(|invalid| panic!("{}", invalid.why))
}

/// Headers have texts only, and a media type wherever there is data.
fn as_headers_tell(event: Event) -> Event {
    let text = |value: Value| match value {
        Value::String(text) => text.into(),
        value => value.to_string().into(),
    };
    let extensions = event.extensions.into_iter().map(|(name, value)| (name, text(value)));
    let kind = match &event.data {
        Data::Absent => None,
        Data::Json(_) => Some("application/json".to_owned()),
        Data::Binary(_) => Some("application/octet-stream".to_owned()),
    };
    let data = match event.data {
        Data::Binary(data) if data.is_empty() => Data::Absent,
        data => data,
    };
    let datacontenttype = event.datacontenttype.or(kind);
    Event { extensions: extensions.collect(), datacontenttype, data, ..event }
}

proptest! {
    #[test]
    fn any_event_comes_back_out_of_a_structured_envelope(event in any_honest_event()) {
        prop_assert_eq!(read_back(event.write_structured(), &event), event);
    }

    #[test]
    fn any_event_comes_back_out_of_a_binary_envelope(event in any_honest_event()) {
        prop_assert_eq!(read_back(event.write_binary(), &event), as_headers_tell(event));
    }

    #[test]
    fn any_header_prefix_means_the_same(
        event in any_honest_event(),
        prefix in prop::sample::select(vec!["cloudEvents:", "cloudEvents_", "CE-"]),
    ) {
        let mut written = event.write_binary();
        for (name, _) in &mut written.headers {
            *name = name.replacen("ce-", prefix, 1);
        }
        prop_assert_eq!(read_back(written, &event), read_back(event.write_binary(), &event));
    }

    #[test]
    fn any_event_comes_back_out_of_metadata_and_data(mut event in any_honest_event()) {
        // Where the event has no time, the envelope's reader has one.
        event.time.get_or_insert_with(|| rfc3339(Timestamp(0)));
        event.extensions.retain(|name, _| name != "version");
        prop_assert_eq!(read_back(event.write_metadata_data(), &event), event);
    }

    #[test]
    fn any_events_come_back_out_of_a_batch(
        events in prop::collection::vec(any_honest_event(), 0..4),
    ) {
        let texts: Vec<Vec<u8>> = events.iter().map(Event::to_json).collect();
        let body = [b"[", &texts.join(&b',')[..], b"]"].concat();
        let batch = cloudevents::batch(&body.into(), 4).unwrap();
        let finish = |(draft, _): (crate::event::Draft, Bytes)| {
            draft.finish(String::new, None, "").unwrap().0
        };
        let read: Vec<Event> = batch.into_iter().map(finish).collect();
        let sent = events.into_iter().map(|event| Event { traceparent: None, ..event });
        prop_assert_eq!(read, sent.collect::<Vec<_>>());
    }
}

#[test]
fn the_deepest_data_leaves_room_for_the_event_around_it() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let arrival = |depth| {
        let body = nested(depth).into();
        let routing_key = "k".to_owned();
        let message = message::Message { body, routing_key, ..message::Message::default() };
        message::read(&message, "r", &EventMapping::default(), Timestamp(0)).event
    };
    let deepest = arrival(DEPTH_MAX - 1).unwrap();
    assert_eq!(read_back(deepest.write_structured(), &deepest).data, deepest.data);
    assert_eq!(read_back(deepest.write_metadata_data(), &deepest).data, deepest.data);
    let why = arrival(DEPTH_MAX).unwrap_err().why;
    assert_eq!(why, "nested deeper than 128 levels");
}
