//! The form an event has in the queue: its attributes as one small JSON object, its data beside
//! it as bytes.
//!
//! ```text
//! {"id":"1","source":"/orders","type":"order.confirmed","$data":"binary","$traceparent":"00-…"}
//! ```
//!
//! Members with a `$` are ours: no CloudEvents attribute can be called so. `$data` is left out for
//! JSON, the usual case. This is on the path of every event, twice, so it is read by hand: a
//! derived reader would have to buffer everything to find the extensions.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use serde::de::{Error as _, MapAccess, Visitor};

use crate::TraceContext;

use super::{Data, Event, EventError, members::Name, not_json, write_member};

const DATA: &str = "$data";
const TRACEPARENT: &str = "$traceparent";
const TRACESTATE: &str = "$tracestate";
const HOPS: &str = "$hops";

impl Event {
    /// What the queue stores beside the data: attributes, trace context and the kind of data, as
    /// one JSON object.
    #[must_use]
    pub fn encode_attributes(&self) -> Vec<u8> {
        let mut json = Vec::with_capacity(384);
        json.push(b'{');
        self.write_attributes(&mut json);
        let kind = match self.data {
            Data::Json(_) => None,
            Data::Absent => Some("absent"),
            Data::Binary(_) => Some("binary"),
        };
        if let Some(kind) = kind {
            json.push(b',');
            write_member(&mut json, DATA, kind);
        }
        if let Some(traceparent) = &self.traceparent {
            json.push(b',');
            write_member(&mut json, TRACEPARENT, &traceparent.to_string());
            if let Some(state) = traceparent.state() {
                json.push(b',');
                write_member(&mut json, TRACESTATE, state);
            }
        }
        if self.hops > 0 {
            json.push(b',');
            write_member(&mut json, HOPS, &self.hops);
        }
        json.push(b'}');
        json
    }

    /// Reads back what [`Event::encode_attributes`] and [`Event::data_bytes`] gave. Where only the
    /// attributes matter, as in a list, `data` may be empty: JSON data is then absent.
    ///
    /// # Errors
    /// When the bytes are not of that form: the store is damaged.
    pub fn decode(attributes: &[u8], data: Bytes) -> Result<Self, EventError> {
        let mut parser = serde_json::Deserializer::from_slice(attributes);
        let reader = Reader { data };
        let event = serde::Deserializer::deserialize_map(&mut parser, reader).map_err(not_json)?;
        parser.end().map_err(not_json)?;
        Ok(event)
    }
}

/// Reads the attributes around the data.
struct Reader {
    data: Bytes,
}

impl<'de> Visitor<'de> for Reader {
    type Value = Event;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the stored attributes of an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Event, A::Error> {
        let (mut id, mut source, mut kind) = (None, None, None);
        let (mut subject, mut time, mut datacontenttype) = (None, None, None);
        let (mut dataschema, mut binary) = (None, None);
        let (mut traceparent, mut tracestate) = (None::<Name<'_>>, None::<Name<'_>>);
        let mut hops = 0;
        let mut extensions = BTreeMap::new();
        while let Some(Name(name)) = map.next_key()? {
            match &*name {
                "id" => id = Some(map.next_value()?),
                "source" => source = Some(map.next_value()?),
                "type" => kind = Some(map.next_value()?),
                "subject" => subject = Some(map.next_value()?),
                "time" => time = Some(map.next_value()?),
                "datacontenttype" => datacontenttype = Some(map.next_value()?),
                "dataschema" => dataschema = Some(map.next_value()?),
                TRACEPARENT => traceparent = Some(map.next_value()?),
                TRACESTATE => tracestate = Some(map.next_value()?),
                HOPS => hops = map.next_value()?,
                DATA => binary = Some(data_kind(&mut map)?),
                _ if name.starts_with('$') => {
                    return Err(A::Error::unknown_field(
                        &name,
                        &[DATA, TRACEPARENT, TRACESTATE, HOPS],
                    ));
                }
                _ => _ = extensions.insert(name.into_owned(), map.next_value()?),
            }
        }
        let data = match binary {
            None if self.data.is_empty() => Data::Absent,
            None => Data::Json(self.data),
            Some(Kind::Absent) => Data::Absent,
            Some(Kind::Binary) => Data::Binary(self.data),
        };
        let state = tracestate.as_ref().map(|Name(state)| &**state);
        let traceparent =
            traceparent.and_then(|Name(parent)| TraceContext::carried(&parent, state));
        Ok(Event {
            id: id.ok_or_else(|| A::Error::missing_field("id"))?,
            source: source.ok_or_else(|| A::Error::missing_field("source"))?,
            kind: kind.ok_or_else(|| A::Error::missing_field("type"))?,
            subject,
            time,
            datacontenttype,
            dataschema,
            extensions,
            traceparent,
            hops,
            data,
        })
    }
}

/// The kinds of data that are said; JSON is not.
enum Kind {
    Absent,
    Binary,
}

fn data_kind<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Kind, A::Error> {
    let Name(kind): Name<'de> = map.next_value()?;
    match &*kind {
        "absent" => Ok(Kind::Absent),
        "binary" => Ok(Kind::Binary),
        other => Err(A::Error::unknown_variant(other, &["absent", "binary"])),
    }
}
