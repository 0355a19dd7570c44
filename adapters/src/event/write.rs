//! The envelopes as they are written: the counterpart of what
//! [`message::read`](super::message::read) reads.
//!
//! | envelope | body | beside it |
//! |---|---|---|
//! | structured | the event in the JSON format (1.0.2) | `application/cloudevents+json` |
//! | binary | the data, byte for byte | attributes as headers `ce-…`, values as text |
//! | metadata-data | `{"metadata": {…}, "data": …}`, keys in camel case | `application/json` |
//!
//! Of the header prefixes that consumers know, `ce-` is the one of the RabbitMQ binding that the
//! CloudEvents SDKs implement (<https://github.com/knative-extensions/eventing-rabbitmq>,
//! `cloudevents-protocol-spec`). JSON data is spliced in as it came, never written anew; data that
//! is no JSON travels as Base64 where the body is JSON.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::Value;

use super::{Data, Event, plain::CONTENT_ENCODING, write_member};

/// An event as a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The body.
    pub body: Bytes,
    /// Its media type; none where there is no data.
    pub content_type: Option<String>,
    /// How the body is compressed, where it is the data as it came.
    pub content_encoding: Option<String>,
    /// Headers.
    pub headers: Vec<(String, String)>,
}

impl Event {
    /// As a structured CloudEvent.
    #[must_use]
    pub fn write_structured(&self) -> Written {
        Written {
            body: self.to_json().into(),
            content_type: Some("application/cloudevents+json".to_owned()),
            content_encoding: None,
            headers: Vec::new(),
        }
    }

    /// As a binary CloudEvent.
    #[must_use]
    pub fn write_binary(&self) -> Written {
        let mut headers = vec![("ce-specversion".to_owned(), "1.0".to_owned())];
        let attributes = [
            ("ce-id", Some(&self.id)),
            ("ce-source", Some(&self.source)),
            ("ce-type", Some(&self.kind)),
            ("ce-subject", self.subject.as_ref()),
            ("ce-time", self.time.as_ref()),
            ("ce-dataschema", self.dataschema.as_ref()),
        ];
        let there = attributes.into_iter().filter_map(|(name, value)| Some((name, value?)));
        headers.extend(there.map(|(name, value)| (name.to_owned(), value.clone())));
        for (name, value) in &self.extensions {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            headers.push((format!("ce-{name}"), text));
        }
        let content_type = match (&self.datacontenttype, &self.data) {
            (Some(content_type), _) => Some(content_type.clone()),
            (None, Data::Json(_)) => Some("application/json".to_owned()),
            (None, Data::Binary(_)) => Some("application/octet-stream".to_owned()),
            (None, Data::Absent) => None,
        };
        let encoding = self.extensions.get(CONTENT_ENCODING).and_then(Value::as_str);
        let content_encoding = encoding.map(str::to_owned);
        Written { body: self.data_bytes(), content_type, content_encoding, headers }
    }

    /// As metadata and data. The extension `version` is the event's version; the other extensions
    /// are metadata under their own names.
    #[must_use]
    pub fn write_metadata_data(&self) -> Written {
        let mut body = Vec::with_capacity(512 + self.size_hint());
        body.extend_from_slice(b"{\"metadata\":{");
        write_member(&mut body, "eventId", &self.id);
        let encoding = matches!(self.data, Data::Binary(_)).then(|| "base64".to_owned());
        let attributes = [
            ("eventType", Some(&self.kind)),
            ("source", Some(&self.source)),
            ("subject", self.subject.as_ref()),
            ("eventTime", self.time.as_ref()),
            ("dataContentType", self.datacontenttype.as_ref()),
            ("dataSchema", self.dataschema.as_ref()),
            ("dataEncoding", encoding.as_ref()),
        ];
        for (name, value) in attributes {
            if let Some(value) = value {
                body.push(b',');
                write_member(&mut body, name, value);
            }
        }
        for (name, value) in &self.extensions {
            body.push(b',');
            let name = if name == "version" { "eventVersion" } else { name };
            write_member(&mut body, name, value);
        }
        body.push(b'}');
        match &self.data {
            Data::Absent => {}
            Data::Json(data) => {
                body.extend_from_slice(b",\"data\":");
                body.extend_from_slice(data);
            }
            Data::Binary(data) => {
                body.push(b',');
                write_member(&mut body, "data", &Value::from(STANDARD.encode(data)));
            }
        }
        body.push(b'}');
        let content_type = Some("application/json".to_owned());
        Written { body: body.into(), content_type, content_encoding: None, headers: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::{
        Timestamp,
        event::{EventMapping, message},
    };

    fn event(data: Data) -> Event {
        Event {
            id: "e-1".to_owned(),
            source: "/shop".to_owned(),
            kind: "shop.sold".to_owned(),
            subject: Some("Größe 7".to_owned()),
            time: Some("2026-01-31T12:00:00Z".to_owned()),
            datacontenttype: Some(match data {
                Data::Binary(_) => "image/png".to_owned(),
                _ => "application/json".to_owned(),
            }),
            dataschema: Some("https://schema.example/sold".to_owned()),
            extensions: [("tenant".to_owned(), json!("acme")), ("version".to_owned(), json!("v2"))]
                .into(),
            traceparent: None,
            hops: 0,
            data,
        }
    }

    fn read_back(written: Written) -> Event {
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
        let arrival = message::read(&message, "r", &EventMapping::default(), Timestamp(0));
        arrival.event.unwrap_or_else(|invalid| panic!("{}", invalid.why))
    }

    #[test]
    fn what_is_written_is_read_back_as_it_was() {
        let json = br#"{"total": 12.50, "n": 12345678901234567890, "n": 1}"#;
        for data in [Data::Json(Bytes::from_static(json)), Data::Binary(vec![0xff, 0, 1].into())] {
            let event = event(data);
            let writers: [fn(&Event) -> Written; 3] =
                [Event::write_structured, Event::write_binary, Event::write_metadata_data];
            for write in writers {
                assert_eq!(read_back(write(&event)), event);
            }
        }
    }

    #[test]
    fn compressed_data_stays_what_it_is_in_any_envelope() {
        let gzip = Data::Binary(vec![0x1f, 0x8b, 8, 0].into());
        let mut event = Event { datacontenttype: Some("application/json".into()), ..event(gzip) };
        event.extensions.insert("contentencoding".to_owned(), json!("gzip"));
        let writers: [fn(&Event) -> Written; 3] =
            [Event::write_structured, Event::write_binary, Event::write_metadata_data];
        for write in writers {
            assert_eq!(read_back(write(&event)), event);
        }
    }

    #[test]
    fn an_event_without_data_has_none_in_any_envelope() {
        let event = Event { datacontenttype: None, ..event(Data::Absent) };
        assert_eq!(read_back(event.write_structured()).data, Data::Absent);
        assert_eq!(event.write_binary().body, "");
        assert_eq!(event.write_binary().content_type, None);
        assert!(!event.write_metadata_data().body.ends_with(b"\"data\":}"));
    }
}
