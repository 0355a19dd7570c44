//! Signatures: as a request carries them, and whether one of them is ours.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use subtle::{Choice, ConstantTimeEq as _};

use super::Unverified;
use crate::{
    http::{
        ConfigError, HmacAlgorithm, HmacEncoding,
        hmac::{self, Key},
    },
    secret::Secret,
};

/// Signatures of one request at most. Senders list one for each secret they hold while they
/// replace one, so two or three; without a bound one request could ask for any number.
const SIGNATURES_MAX: usize = 32;

/// The keys of one webhook; any of them may have signed.
#[derive(Debug)]
pub(super) struct Keys(Vec<Key>);

impl Keys {
    /// The keys of `secrets`, which stand at `key`, each as `read` reads it.
    ///
    /// # Errors
    /// No secret at all, or one that `read` refuses.
    pub(super) fn new(
        key: &str,
        secrets: &[Secret],
        read: impl Fn(&str) -> Result<Key, String>,
    ) -> Result<Self, ConfigError> {
        if secrets.is_empty() {
            return Err(ConfigError::new(key, "is empty: name at least one secret"));
        }
        let keys = secrets.iter().enumerate().map(|(n, secret)| {
            read(secret.expose())
                .map_err(|problem| ConfigError::new(format!("{key}[{n}]"), problem))
        });
        keys.collect::<Result<_, _>>().map(Self)
    }

    /// The keys of `secrets` whose text is the key, as the presets' are.
    ///
    /// # Errors
    /// No secret at all, an empty one, or one that was copied with the white space around it: all
    /// it would ever say is that no signature is right.
    pub(super) fn text(
        key: &str,
        secrets: &[Secret],
        algorithm: HmacAlgorithm,
    ) -> Result<Self, ConfigError> {
        Self::new(key, secrets, |secret| match secret {
            "" => Err("is empty: anyone could sign with it".to_owned()),
            _ if secret.trim() != secret => {
                Err("starts or ends with white space: copy the secret without".to_owned())
            }
            _ => Ok(Key::new(algorithm, secret.as_bytes())),
        })
    }

    /// Whether one of `given` is the signature of `signed` by one of these keys.
    ///
    /// All keys sign and all signatures are compared, each in constant time, whichever matches:
    /// how long it takes tells neither which key nor how much of a signature was right. The length
    /// of a signature is no secret, it follows from the hash.
    pub(super) fn signed<'a>(
        &self,
        signed: impl IntoIterator<Item = &'a [u8]> + Clone,
        given: &[Vec<u8>],
    ) -> bool {
        let mut found = Choice::from(0);
        for key in &self.0 {
            let expected = key.mac(signed.clone());
            for given in given {
                found |= expected.ct_eq(given);
            }
        }
        found.into()
    }

    /// As [`Keys::signed`], in a sender's words; `header` is where the signatures came in.
    ///
    /// # Errors
    /// None matches.
    pub(super) fn check<'a>(
        &self,
        signed: impl IntoIterator<Item = &'a [u8]> + Clone,
        given: &[Vec<u8>],
        header: &str,
    ) -> Result<(), Unverified> {
        match self.signed(signed, given) {
            true => Ok(()),
            false => Err(mismatch(header)),
        }
    }
}

/// No signature that came in `header` is right.
pub(super) fn mismatch(header: &str) -> Unverified {
    Unverified(format!(
        "no signature in `{header}` is right: another secret signed, or something between sender \
         and receiver changed the request"
    ))
}

/// Reads the signatures of a header, given as texts; those that cannot be one are left out, as a
/// list may hold others' schemes.
///
/// # Errors
/// None is a signature, and `due` says what one is; or there are more than anyone sends.
pub(super) fn read<'a>(
    texts: impl Iterator<Item = &'a str>,
    encoding: HmacEncoding,
    header: &str,
    due: &str,
) -> Result<Vec<Vec<u8>>, Unverified> {
    let mut given = Vec::new();
    for (n, text) in texts.enumerate() {
        if n == SIGNATURES_MAX {
            let problem =
                format!("`{header}` holds more than {SIGNATURES_MAX} signatures: send fewer");
            return Err(Unverified(problem));
        }
        given.extend(match encoding {
            HmacEncoding::Hex => hmac::unhex(text),
            HmacEncoding::Base64 => STANDARD.decode(text).ok(),
        });
    }
    given.retain(|signature| !signature.is_empty());
    match given.is_empty() {
        true => Err(Unverified(format!("`{header}` holds no signature: {due} is due"))),
        false => Ok(given),
    }
}
