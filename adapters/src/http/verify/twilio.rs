//! Twilio (<https://www.twilio.com/docs/usage/webhooks/webhooks-security>).
//!
//! `X-Twilio-Signature`: an HMAC in Base64, of the whole URL and, for a form, of its parameters:
//! sorted by name, each name directly before its value, decoded. For any other body the URL holds
//! `bodySHA256`, the body's hash in hexadecimal, and the URL alone is signed. The hash function is
//! SHA-1 for an account's token, SHA-256 for a shared key
//! (<https://www.twilio.com/docs/usage/webhooks/webhook-shared-keys>); the signature's length says
//! which. Twilio writes a URL's port or leaves it out, and its own libraries try both; so does
//! this. `server.public_url` must be what Twilio calls.
//!
//! **What this scheme does not prove.** It signs no timestamp, and parameters without separators:
//! whoever captures a request can send it again, and can move characters between a parameter's
//! name, its value and its neighbours. Both need the captured request: use HTTPS.
//!
//! The message's id is `I-Twilio-Idempotency-Token`, the same when Twilio sends again; it is not
//! signed. Without it, the message's SID and its status, or the call's with its place in the
//! sequence of callbacks. Requests in the course of a call have no such place and get a fresh id,
//! as the same key pressed twice is no repeat. A yes is TwiML that says nothing, or Twilio would
//! log an error or read a body aloud.

use std::borrow::Cow;

use http::header::CONTENT_TYPE;
use percent_encoding::percent_decode;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{Unverified, Verified, headers, signature, signature::Keys};
use crate::http::{
    ConfigError, HmacAlgorithm, HmacEncoding, hmac,
    webhook::{PresetConfig, Received},
};

const SIGNATURE: &str = "x-twilio-signature";
const ID: &str = "i-twilio-idempotency-token";
/// Of one form; Twilio sends some dozens. Without a bound a stranger could have a million sorted.
const PARAMETERS_MAX: usize = 1000;

/// Verifies as Twilio signs.
#[derive(Debug)]
pub(super) struct Twilio {
    sha1: Keys,
    sha256: Keys,
}

/// Parameters of a form, decoded and sorted, no pair twice.
type Form = Vec<(Vec<u8>, Vec<u8>)>;

impl Twilio {
    /// # Errors
    /// A secret that is none.
    pub(super) fn new(config: &PresetConfig) -> Result<Self, ConfigError> {
        let keys = |algorithm| Keys::text("twilio.secrets", &config.secrets, algorithm);
        Ok(Self { sha1: keys(HmacAlgorithm::Sha1)?, sha256: keys(HmacAlgorithm::Sha256)? })
    }

    /// # Errors
    /// Why the request is not believed.
    pub(super) fn verify(&self, request: &Received) -> Result<Verified, Unverified> {
        let text = headers::one(&request.headers, SIGNATURE)?;
        let given =
            signature::read(std::iter::once(text), HmacEncoding::Base64, SIGNATURE, "Base64")?;
        let form = body(request)?;
        let parameters: Vec<u8> =
            form.iter().flat_map(|(name, value)| [&name[..], value]).flatten().copied().collect();
        let keys = match given.iter().all(|given| given.len() == Sha256::output_size()) {
            true => &self.sha256,
            false => &self.sha1,
        };
        let urls = [Cow::from(&request.url), other_port(&request.url)];
        let signed = urls.map(|url| keys.signed([url.as_bytes(), &parameters], &given));
        if !signed.contains(&true) {
            return Err(signature::mismatch(SIGNATURE));
        }
        let id = headers::id(&request.headers, ID).or_else(|| id(&form));
        Ok(Verified { id, handshake: None })
    }
}

/// The form's parameters; none, where the URL holds the body's hash and the body has it, or where
/// there is no body.
fn body(request: &Received) -> Result<Form, Unverified> {
    let mut hashes =
        request.query.split('&').filter_map(|parameter| parameter.strip_prefix("bodySHA256="));
    match (hashes.next(), hashes.next()) {
        (None, _) => {}
        (Some(_), Some(_)) => {
            return Err(Unverified("`bodySHA256` is in the URL more than once".to_owned()));
        }
        (Some(hash), None) => {
            let hash = hmac::unhex(hash).unwrap_or_default();
            return match bool::from(Sha256::digest(&request.raw)[..].ct_eq(&hash)) {
                true => Ok(Form::new()),
                false => Err(Unverified("the body is not the one of `bodySHA256`".to_owned())),
            };
        }
    }
    if request.raw.is_empty() {
        return Ok(Form::new());
    }
    let content_type = headers::one(&request.headers, CONTENT_TYPE.as_str()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        let problem = "the body is not signed: it is no form, and `bodySHA256` is not in the URL";
        return Err(Unverified(problem.to_owned()));
    }
    form(&request.raw)
}

/// Reads a form as bytes: two texts that differ stay different, whether they are UTF-8 or not.
fn form(raw: &[u8]) -> Result<Form, Unverified> {
    let decoded = |text: &[u8]| {
        let spaced: Vec<u8> =
            text.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
        percent_decode(&spaced).collect::<Vec<u8>>()
    };
    let mut form = Form::new();
    for pair in raw.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()) {
        if form.len() == PARAMETERS_MAX {
            let problem = format!("the form holds more than {PARAMETERS_MAX} parameters");
            return Err(Unverified(problem));
        }
        let mut sides = pair.splitn(2, |&byte| byte == b'=');
        let mut side = || decoded(sides.next().unwrap_or_default());
        form.push((side(), side()));
    }
    form.sort_unstable();
    form.dedup();
    Ok(form)
}

/// The same URL with its scheme's port where it has none, and without where it has one.
fn other_port(url: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = url.split_once("://") else { return url.into() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // What stands in brackets is an IPv6 address and has colons of its own, as has the user part.
    let host = authority.rfind(['@', ']']).map_or(0, |end| end + 1);
    match authority[host..].find(':') {
        Some(colon) => format!("{scheme}://{}{path}", &authority[..host + colon]).into(),
        None => {
            let port = if scheme == "https" { 443 } else { 80 };
            format!("{scheme}://{authority}:{port}{path}").into()
        }
    }
}

/// What stays the same when Twilio sends again, and differs from one message to the next.
fn id(form: &Form) -> Option<String> {
    let field = |name: &str| {
        let (_, value) = form.iter().find(|(known, _)| known == name.as_bytes())?;
        std::str::from_utf8(value).ok().filter(|value| !value.is_empty())
    };
    if let Some(message) = field("MessageSid").or_else(|| field("SmsSid")) {
        let status = field("MessageStatus").or_else(|| field("SmsStatus"))?;
        return Some(format!("{message}/{status}"));
    }
    let (call, status) = (field("CallSid")?, field("CallStatus")?);
    Some(format!("{call}/{status}/{}", field("SequenceNumber")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_added_or_left_out_and_nothing_else_of_the_url_changes() {
        for (url, expected) in [
            ("https://a.example/x?y=z:1", "https://a.example:443/x?y=z:1"),
            ("http://a.example", "http://a.example:80"),
            ("https://a.example:8443/x", "https://a.example/x"),
            ("https://u:p@a.example/x", "https://u:p@a.example:443/x"),
            ("https://u:p@a.example:1?x", "https://u:p@a.example?x"),
            ("https://[::1]/x", "https://[::1]:443/x"),
            ("https://[::1]:1/x", "https://[::1]/x"),
            ("/x:1", "/x:1"),
        ] {
            assert_eq!(other_port(url), expected);
        }
    }

    #[test]
    fn a_form_is_decoded_to_bytes_sorted_and_told_once() {
        let pairs = form(b"b=2&a=%FF+%2B&&b=1&b=2&empty&=x&a=").unwrap();
        let expected: [(&[u8], &[u8]); 6] = [
            (b"", b"x"),
            (b"a", b""),
            (b"a", b"\xff +"),
            (b"b", b"1"),
            (b"b", b"2"),
            (b"empty", b""),
        ];
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (&name[..], &value[..])).collect();
        assert_eq!(pairs, expected);
        assert!(form("a=1&".repeat(PARAMETERS_MAX).as_bytes()).is_ok());
        assert!(form("a=1&".repeat(PARAMETERS_MAX + 1).as_bytes()).is_err());
    }
}
