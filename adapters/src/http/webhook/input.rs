//! What a webhook's expressions work on: `{method, url, path, query, headers, raw, body}`.

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};

use super::{Received, VerifyConfig, form};
use crate::expression::{Input, Member};

/// Headers that carry credentials as such. They have done their work when the mapping begins, and
/// an expression that fails shows what it worked on.
pub(super) fn credentials(config: &VerifyConfig) -> Vec<HeaderName> {
    let mut names = vec![header::AUTHORIZATION, header::PROXY_AUTHORIZATION];
    if let VerifyConfig::ApiKey(config) = config
        && let Ok(name) = HeaderName::try_from(&config.header)
    {
        names.push(name);
    }
    names
}

/// The input of `request`, whose body is `body` as JSON; without the headers `hidden`.
///
/// `raw` is the text as sent, null where it is none; then `raw_base64` is there as well.
pub(super) fn of(request: &Received, body: &Bytes, hidden: &[HeaderName]) -> Input {
    let text = |text: &str| Member::Text(Bytes::copy_from_slice(text.as_bytes()));
    let mut members = Vec::with_capacity(8);
    members.push(("method", text(request.method.as_str())));
    members.push(("url", text(&request.url)));
    members.push(("path", text(&request.path)));
    members.push(("query", Member::Json(form::query(&request.query))));
    members.push(("headers", Member::Json(headers(&request.headers, hidden))));
    if std::str::from_utf8(&request.raw).is_ok() {
        members.push(("raw", Member::Text(request.raw.clone())));
    } else {
        let base64 = base64::engine::general_purpose::STANDARD.encode(&request.raw);
        members.push(("raw", Member::Json(Bytes::from_static(b"null"))));
        members.push(("raw_base64", Member::Text(base64.into())));
    }
    members.push(("body", Member::Json(body.clone())));
    Input::object(members)
}

/// An object of texts: names in lower case, the values of a repeated one joined by commas
/// (RFC 9110, §5.3).
fn headers(headers: &HeaderMap, hidden: &[HeaderName]) -> Bytes {
    let mut json = Vec::with_capacity(headers.len() * 48);
    json.push(b'{');
    for name in headers.keys().filter(|name| !hidden.contains(name)) {
        let values = headers.get_all(name).into_iter();
        let values: Vec<_> =
            values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        if json.len() > 1 {
            json.push(b',');
        }
        form::write(&mut json, name.as_str());
        json.push(b':');
        match &*values {
            [value] => form::write(&mut json, value),
            values => form::write(&mut json, &values.join(", ")),
        }
    }
    json.push(b'}');
    json.into()
}
