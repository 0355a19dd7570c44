//! An HMAC of a sender's own making, as configured.
//!
//! What a signature proves follows from what is signed. `{raw}` always is, or it would prove
//! nothing. A timestamp proves freshness only when it is signed, so a `timestamp_header` without
//! `{timestamp}` is refused. An `id_header` without `{id}` is allowed, because many providers send
//! such: the id is then as good as the way it came. Whoever captures a request can send it again
//! under another id, which deduplication cannot tell from a new message; the tolerance of a signed
//! timestamp bounds for how long. Signed or not, a header that is configured must be there.
//!
//! Pieces are signed as one text. Where a provider puts no separator between two (`{raw}` next to
//! `{timestamp}`), bytes can be moved from one to the other without harm to the signature; write a
//! separator wherever the sender has one.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderName;

use super::{Unverified, Verified, freshness, headers, signature, signature::Keys};
use crate::{
    Timestamp,
    http::{
        ConfigError, HmacEncoding,
        hmac::{self, Key, Piece, Signed},
        webhook::{HmacVerifyConfig, Received, SecretEncoding},
    },
};

/// Verifies a plain HMAC.
#[derive(Debug)]
pub(super) struct HmacVerifier {
    header: HeaderName,
    encoding: HmacEncoding,
    prefix: String,
    keys: Keys,
    signed: Vec<Piece>,
    timestamp: Option<(HeaderName, Duration)>,
    id: Option<HeaderName>,
}

impl HmacVerifier {
    /// # Errors
    /// A secret, header or prefix that is none; a `signed` that proves nothing, or names what is
    /// not sent.
    pub(super) fn new(config: &HmacVerifyConfig) -> Result<Self, ConfigError> {
        let signed = hmac::pieces("hmac.signed", &config.signed)?;
        let named = |key: &str, name: &Option<String>| {
            name.as_deref().map(|name| headers::name(key, name)).transpose()
        };
        let header = headers::name("hmac.header", &config.header)?;
        let timestamp = named("hmac.timestamp_header", &config.timestamp_header)?;
        let id = named("hmac.id_header", &config.id_header)?;
        refuse_unsent(&signed, timestamp.is_some(), id.is_some())?;
        for (key, other) in [("hmac.timestamp_header", &timestamp), ("hmac.id_header", &id)] {
            if other.as_ref() == Some(&header) {
                let problem = "is the signature's own header: name the one that carries it";
                return Err(ConfigError::new(key, problem));
            }
        }
        let timestamp = match timestamp {
            None => None,
            Some(name) => Some((name, freshness::tolerance("hmac.tolerance", config.tolerance)?)),
        };
        Ok(Self {
            header,
            encoding: config.encoding,
            prefix: prefix(&config.prefix)?,
            keys: Keys::new("hmac.secrets", &config.secrets, |secret| {
                Ok(Key::new(config.algorithm, &decode(config.secret_encoding, secret)?))
            })?,
            signed,
            timestamp,
            id,
        })
    }

    /// # Errors
    /// Why the request is not believed.
    pub(super) fn verify(
        &self,
        request: &Received,
        now: Timestamp,
    ) -> Result<Verified, Unverified> {
        let headers = &request.headers;
        let listed = headers::one(headers, self.header.as_str())?;
        let mut timestamp = "";
        if let Some((name, tolerance)) = &self.timestamp {
            timestamp = headers::one(headers, name.as_str())?;
            freshness::check(freshness::read(timestamp, name.as_str())?, now, *tolerance)?;
        }
        let id = self.id.as_ref().map(|name| headers::one(headers, name.as_str())).transpose()?;
        let given = self.given(listed)?;
        let signed =
            Signed { id: id.unwrap_or_default(), timestamp, url: &request.url, raw: &request.raw };
        let pieces = self.signed.iter().map(|piece| signed.piece(piece));
        self.keys.check(pieces, &given, self.header.as_str())?;
        Ok(Verified { id: id.map(str::to_owned), handshake: None })
    }

    /// The signatures of the header: whatever stands between separators, after the prefix. The
    /// prefix itself may hold separators (`Signature keyId=a, `).
    fn given(&self, listed: &str) -> Result<Vec<Vec<u8>>, Unverified> {
        const SEPARATORS: [char; 3] = [',', ' ', '\t'];
        let form = match self.encoding {
            HmacEncoding::Hex => "hexadecimal",
            HmacEncoding::Base64 => "Base64",
        };
        let header = self.header.as_str();
        let prefix = self.prefix.as_str();
        if prefix.is_empty() {
            let texts = listed.split(SEPARATORS).filter(|text| !text.is_empty());
            return signature::read(texts, self.encoding, header, form);
        }
        let texts = listed.match_indices(prefix).filter_map(|(at, _)| {
            let (before, found) = listed.split_at(at);
            // Only then the end is looked for: else `v1=v1=v1=…` would take quadratic time.
            let starts = before.is_empty() || before.ends_with(SEPARATORS);
            starts.then(|| found[prefix.len()..].split(SEPARATORS).next().unwrap_or_default())
        });
        signature::read(texts, self.encoding, header, &format!("`{prefix}` and {form}"))
    }
}

/// What is named in `signed` must be sent. A timestamp that is not signed is still looked at,
/// though anyone could renew it: the configuration is warned of.
fn refuse_unsent(signed: &[Piece], timestamp: bool, id: bool) -> Result<(), ConfigError> {
    let error = |key, problem| Err(ConfigError::new(key, problem));
    if signed.contains(&Piece::Timestamp) && !timestamp {
        return error(
            "hmac.timestamp_header",
            "is missing: `signed` names {timestamp}, so say which header carries it",
        );
    }
    if signed.contains(&Piece::Id) && !id {
        return error(
            "hmac.id_header",
            "is missing: `signed` names {id}, so say which header carries it",
        );
    }
    Ok(())
}

/// A prefix that can stand in a header.
fn prefix(prefix: &str) -> Result<String, ConfigError> {
    let problem = if !prefix.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        "holds other than visible ASCII, and no header does"
    } else if prefix.starts_with(' ') {
        "starts with a space, and no header does: leave it out"
    } else {
        return Ok(prefix.to_owned());
    };
    Err(ConfigError::new("hmac.prefix", problem))
}

pub(super) fn decode(encoding: SecretEncoding, secret: &str) -> Result<Vec<u8>, String> {
    let key = match encoding {
        SecretEncoding::Utf8 => Some(secret.as_bytes().to_vec()),
        SecretEncoding::Hex => hmac::unhex(secret),
        SecretEncoding::Base64 => STANDARD.decode(secret).ok(),
    };
    let form = match encoding {
        SecretEncoding::Utf8 => "text",
        SecretEncoding::Hex => "hexadecimal",
        SecretEncoding::Base64 => "standard Base64 with padding",
    };
    match key {
        None => Err(format!("is not {form}: copy it whole, or change `secret_encoding`")),
        Some(key) if key.is_empty() => Err("is empty: anyone could sign with it".to_owned()),
        Some(key) => Ok(key),
    }
}
