//! What was sent and what came back, as text for an attempt's record.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use url::Url;

use crate::secret::{MASKED, Mask};

/// How much of the request, and of the answer, is kept, in bytes.
pub(super) const KEPT: usize = 4 << 10;

/// Looked at beyond [`KEPT`], so that a secret across the cut is found before the cut is made.
const MARGIN: usize = 4 << 10;

/// The request as text: its line, headers and body. `secret_query` names the parameters that
/// credentials append to `url`; headers that hold credentials are marked as sensitive.
pub(super) fn request<'a>(
    mask: &Mask,
    method: &Method,
    url: &Url,
    secret_query: impl Iterator<Item = &'a str>,
    headers: &HeaderMap,
    body: &Bytes,
) -> String {
    let mut text = String::with_capacity(512 + body.len().min(KEPT));
    text.push_str(method.as_str());
    text.push(' ');
    text.push_str(&url[url::Position::BeforePath..url::Position::AfterQuery]);
    let mut separator = if url.query().is_some() { '&' } else { '?' };
    for name in secret_query {
        text.push(separator);
        text.extend(url::form_urlencoded::byte_serialize(name.as_bytes()));
        text.push('=');
        text.push_str(MASKED);
        separator = '&';
    }
    text.push_str("\nhost: ");
    text.push_str(&url[url::Position::BeforeHost..url::Position::AfterPort]);
    text.push('\n');
    push_headers(&mut text, headers);
    push_body(mask, &mut text, body);
    masked(mask, text)
}

/// The answer as text: its status line, headers and body. `note` says what is wrong with the body.
pub(super) fn response(
    mask: &Mask,
    status: StatusCode,
    headers: &HeaderMap,
    body: &Bytes,
    note: Option<&str>,
) -> String {
    let mut text = String::with_capacity(512 + body.len().min(KEPT));
    text.push_str(status.as_str());
    if let Some(reason) = status.canonical_reason() {
        text.push(' ');
        text.push_str(reason);
    }
    text.push('\n');
    push_headers(&mut text, headers);
    if let Some(note) = note {
        // Before the body, or the cut might take it.
        text.push_str("\n[");
        text.push_str(note);
        text.push(']');
    }
    push_body(mask, &mut text, body);
    masked(mask, text)
}

fn push_headers(text: &mut String, headers: &HeaderMap) {
    for (name, value) in headers {
        text.push_str(name.as_str());
        text.push_str(": ");
        if value.is_sensitive() || holds_credentials(name) {
            text.push_str(MASKED);
        } else {
            text.push_str(&String::from_utf8_lossy(value.as_bytes()));
        }
        text.push('\n');
        if text.len() > KEPT + MARGIN {
            return;
        }
    }
}

/// Headers whose values are credentials whoever set them.
fn holds_credentials(name: &HeaderName) -> bool {
    [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE, header::SET_COOKIE]
        .contains(name)
}

fn push_body(mask: &Mask, text: &mut String, body: &Bytes) {
    if body.is_empty() {
        return;
    }
    let shown = &body[..body.len().min(KEPT + MARGIN)];
    text.push('\n');
    match std::str::from_utf8(shown) {
        Ok(shown) => text.push_str(shown),
        // A character across our own cut does not make a text binary.
        Err(error) if error.error_len().is_none() && shown.len() < body.len() => {
            text.push_str(&String::from_utf8_lossy(&shown[..error.valid_up_to()]));
        }
        // Base64 would hide a secret from the mask.
        Err(_) if mask.apply(&String::from_utf8_lossy(shown)).contains(MASKED) => {
            text.push_str(&format!("[{} bytes, not text, with a secret in them]", body.len()));
        }
        Err(_) => {
            text.push_str(&format!("[{} bytes, not text; Base64] ", body.len()));
            text.push_str(&STANDARD.encode(&shown[..shown.len().min(KEPT)]));
        }
    }
}

/// Masks first and cuts then: half a secret is one too.
fn masked(mask: &Mask, text: String) -> String {
    let mut text = mask.apply(&text);
    if text.len() > KEPT {
        let end = (0..=KEPT - ELLIPSIS.len()).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push_str(ELLIPSIS);
    }
    text
}

const ELLIPSIS: &str = "…";

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "secret-of-some-length";

    fn mask() -> Mask {
        let mask = Mask::default();
        mask.add(SECRET);
        mask
    }

    fn shown(body: impl Into<Bytes>) -> String {
        response(&mask(), StatusCode::OK, &HeaderMap::new(), &body.into(), None)
    }

    #[test]
    fn a_secret_across_the_cut_is_not_half_shown() {
        for position in KEPT - 60..KEPT + 10 {
            let text =
                shown(format!("{}{SECRET} and more{}", "x".repeat(position), "y".repeat(9000)));
            assert!(text.len() <= KEPT && text.ends_with('…'));
            for length in Mask::SHORTEST..SECRET.len() {
                assert!(!text.contains(&SECRET[..length]), "{position}");
            }
        }
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        for shift in 0..4 {
            let text = shown(format!("{}{}", "x".repeat(shift), "é€😀".repeat(3000)));
            assert!(text.len() <= KEPT && text.ends_with('…'), "{}", text.len());
        }
    }

    #[test]
    fn what_is_not_text_is_base64_unless_that_would_hide_a_secret() {
        let text = shown(&b"\xff\xfe\x00"[..]);
        assert_eq!(text, "200 OK\n\n[3 bytes, not text; Base64] //4A");
        let binary = [b"\xff\xfe", SECRET.as_bytes()].concat();
        let text = shown(binary);
        assert_eq!(text, "200 OK\n\n[23 bytes, not text, with a secret in them]");
    }

    #[test]
    fn a_head_that_never_ends_is_cut() {
        let mut headers = HeaderMap::new();
        for number in 0..1000 {
            let name = HeaderName::try_from(format!("x-{number}")).unwrap();
            headers.insert(name, "value".parse().unwrap());
        }
        let text = response(&mask(), StatusCode::OK, &headers, &Bytes::new(), Some("note"));
        assert!(text.len() <= KEPT);
    }
}
