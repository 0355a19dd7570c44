//! HMAC (RFC 2104) as both directions use it: keys that are ready, and what they sign.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha512};

use super::{ConfigError, HmacAlgorithm};

/// A key, taken in once: a signature costs no key schedule.
#[derive(Clone)]
pub(crate) struct Key(Keyed);

#[derive(Clone)]
enum Keyed {
    Sha1(Box<Hmac<Sha1>>),
    Sha256(Box<Hmac<Sha256>>),
    Sha512(Box<Hmac<Sha512>>),
}

/// What may be signed. Each part is signed as the bytes that travel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signed<'a> {
    /// The message's id.
    pub(crate) id: &'a str,
    /// The timestamp as its header writes it.
    pub(crate) timestamp: &'a str,
    /// The whole address.
    pub(crate) url: &'a str,
    /// The body's bytes.
    pub(crate) raw: &'a [u8],
}

/// A piece of what is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Itself.
    Text(String),
    /// `{raw}`.
    Raw,
    /// `{timestamp}`.
    Timestamp,
    /// `{id}`.
    Id,
    /// `{url}`.
    Url,
}

impl Key {
    /// The key of these bytes, of any length.
    pub(crate) fn new(algorithm: HmacAlgorithm, key: &[u8]) -> Self {
        fn keyed<M: Mac + hmac::digest::KeyInit>(key: &[u8]) -> Box<M> {
            Box::new(<M as Mac>::new_from_slice(key).expect("an HMAC key may have any length"))
        }
        Self(match algorithm {
            HmacAlgorithm::Sha1 => Keyed::Sha1(keyed(key)),
            HmacAlgorithm::Sha256 => Keyed::Sha256(keyed(key)),
            HmacAlgorithm::Sha512 => Keyed::Sha512(keyed(key)),
        })
    }

    /// The signature of `signed`, read as one text.
    pub(crate) fn mac<'a>(&self, signed: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        fn run<'a, M: Mac>(mut mac: M, signed: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
            signed.into_iter().for_each(|piece| mac.update(piece));
            mac.finalize().into_bytes().to_vec()
        }
        match &self.0 {
            Keyed::Sha1(key) => run((**key).clone(), signed),
            Keyed::Sha256(key) => run((**key).clone(), signed),
            Keyed::Sha512(key) => run((**key).clone(), signed),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(crate::secret::MASKED)
    }
}

impl<'a> Signed<'a> {
    /// The bytes of one piece.
    pub(crate) fn piece(&self, piece: &'a Piece) -> &'a [u8] {
        match piece {
            Piece::Text(text) => text.as_bytes(),
            Piece::Raw => self.raw,
            Piece::Timestamp => self.timestamp.as_bytes(),
            Piece::Id => self.id.as_bytes(),
            Piece::Url => self.url.as_bytes(),
        }
    }
}

/// Reads `signed`, which stands at `key`: text and a closed set of placeholders, nothing of it
/// interpreted further.
///
/// # Errors
/// An unknown placeholder, a lone brace, or no `{raw}`: a signature that does not cover the body
/// proves nothing about it.
pub(crate) fn pieces(key: &str, signed: &str) -> Result<Vec<Piece>, ConfigError> {
    const PLACEHOLDERS: [(&str, Piece); 4] = [
        ("{raw}", Piece::Raw),
        ("{timestamp}", Piece::Timestamp),
        ("{id}", Piece::Id),
        ("{url}", Piece::Url),
    ];
    let mut pieces = Vec::new();
    let mut rest = signed;
    while let Some(brace) = rest.find(['{', '}']) {
        let (text, at) = rest.split_at(brace);
        if !text.is_empty() {
            pieces.push(Piece::Text(text.to_owned()));
        }
        let known = PLACEHOLDERS.iter().find(|(name, _)| at.starts_with(name));
        let Some((name, piece)) = known else {
            return Err(ConfigError::new(
                key,
                "has a brace that starts none of {raw}, {timestamp}, {id} and {url}",
            ));
        };
        pieces.push(piece.clone());
        rest = &at[name.len()..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    if !pieces.contains(&Piece::Raw) {
        return Err(ConfigError::new(key, "must name {raw}, the request's body"));
    }
    Ok(pieces)
}

/// The key of a Standard Webhooks secret: `whsec_` and Base64, the former optional.
///
/// # Errors
/// When it is not Base64, or empty.
pub(crate) fn webhook_key(secret: &str) -> Result<Key, &'static str> {
    let encoded = secret.strip_prefix("whsec_").unwrap_or(secret);
    let key = STANDARD.decode(encoded).map_err(|_| "is not `whsec_` and Base64: copy it whole")?;
    if key.is_empty() {
        return Err("is empty");
    }
    Ok(Key::new(HmacAlgorithm::Sha256, &key))
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

/// The bytes of hexadecimal text, in upper or lower case or both; `None` when it is none.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 2202 §3 test case 2 and RFC 4231 §4.3 test case 2.
    #[test]
    fn hmacs_match_the_vectors_of_the_rfcs() {
        let data: [&[u8]; 2] = [b"what do ya want ", b"for nothing?"];
        let hex_of = |algorithm| hex(&Key::new(algorithm, b"Jefe").mac(data));
        assert_eq!(hex_of(HmacAlgorithm::Sha1), "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
        assert_eq!(
            hex_of(HmacAlgorithm::Sha256),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hex_of(HmacAlgorithm::Sha512),
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554\
             9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"
        );
    }

    #[test]
    fn hexadecimal_is_read_in_either_case_and_nothing_else_is() {
        assert_eq!(unhex("00fFa9"), Some(vec![0x00, 0xff, 0xa9]));
        assert_eq!(unhex(""), Some(vec![]));
        for bad in ["0", "0g", "+1", " 1", "0x", "é"] {
            assert_eq!(unhex(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_key_does_not_show() {
        assert_eq!(format!("{:?}", Key::new(HmacAlgorithm::Sha256, b"secret")), "***");
    }
}
