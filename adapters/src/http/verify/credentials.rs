//! Credentials that travel with the request: a key in a header, or HTTP Basic. They prove who
//! sends; unlike a signature they prove nothing of what is sent, nor when.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, header};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::{Unverified, Verified, headers};
use crate::http::{
    BasicConfig, ConfigError,
    webhook::{ApiKeyConfig, Received},
};

/// A credential's SHA-256: two of them compare in constant time whatever their lengths were, so
/// that not even the length can be found out by trying.
type Digest = [u8; 32];

/// Verifies a shared key in a header.
#[derive(Debug)]
pub(super) struct ApiKey {
    header: HeaderName,
    keys: Digests,
}

/// Verifies HTTP Basic (RFC 7617), in UTF-8.
#[derive(Debug)]
pub(super) struct Basic {
    credentials: Digests,
}

/// What is expected; blind in `Debug`, as a weak key can be guessed from its digest.
struct Digests(Vec<Digest>);

impl ApiKey {
    /// # Errors
    /// A header that is none, no key at all, or one that no header can hold.
    pub(super) fn new(config: &ApiKeyConfig) -> Result<Self, ConfigError> {
        let header = headers::name("api_key.header", &config.header)?;
        if config.keys.is_empty() {
            return Err(ConfigError::new("api_key.keys", "is empty: name at least one key"));
        }
        let keys = config.keys.iter().enumerate().map(|(n, key)| {
            let key = key.expose();
            let problem = if key.is_empty() {
                "is empty: anyone could send it"
            } else if key.trim() != key {
                "starts or ends with white space, which headers lose on their way: cut it off"
            } else if key.contains(char::is_control) {
                "does not fit into a header: it holds a line break or the like"
            } else {
                return Ok(Sha256::digest(key).into());
            };
            Err(ConfigError::new(format!("api_key.keys[{n}]"), problem))
        });
        Ok(Self { header, keys: Digests(keys.collect::<Result<_, _>>()?) })
    }

    /// # Errors
    /// Why the request is not believed.
    pub(super) fn verify(&self, request: &Received) -> Result<Verified, Unverified> {
        let header = self.header.as_str();
        let key = headers::one_raw(&request.headers, header)?;
        match self.keys.contain(key) {
            true => Ok(Verified::default()),
            false => Err(Unverified(format!("the key in `{header}` is not known here"))),
        }
    }
}

impl Basic {
    /// # Errors
    /// A name with a colon, control characters, or an empty password.
    pub(super) fn new(config: &BasicConfig) -> Result<Self, ConfigError> {
        let BasicConfig { username, password } = config;
        let error = |key, problem| Err(ConfigError::new(key, problem));
        if username.contains(':') {
            let problem = "must not hold a colon: it separates name and password (RFC 7617)";
            return error("basic.username", problem);
        }
        if username.contains(char::is_control) {
            return error("basic.username", "holds a control character, which RFC 7617 forbids");
        }
        if password.expose().is_empty() {
            return error("basic.password", "is empty: anyone could send it");
        }
        if password.expose().contains(char::is_control) {
            return error("basic.password", "holds a control character, which RFC 7617 forbids");
        }
        let credentials = Sha256::digest(format!("{username}:{}", password.expose())).into();
        Ok(Self { credentials: Digests(vec![credentials]) })
    }

    /// # Errors
    /// Why the request is not believed.
    pub(super) fn verify(&self, request: &Received) -> Result<Verified, Unverified> {
        let value = headers::one(&request.headers, header::AUTHORIZATION.as_str())?;
        let (scheme, encoded) = value.split_once(' ').unwrap_or((value, ""));
        let credentials = match scheme.eq_ignore_ascii_case("basic") {
            true => STANDARD.decode(encoded.trim_start_matches(' ')).ok(),
            false => None,
        };
        let credentials = credentials.filter(|given| !given.is_empty()).ok_or_else(|| {
            Unverified("header `authorization` holds no `Basic` and Base64 (RFC 7617)".to_owned())
        })?;
        match self.credentials.contain(&credentials) {
            true => Ok(Verified::default()),
            false => Err(Unverified("name or password in `authorization` is wrong".to_owned())),
        }
    }
}

impl Digests {
    /// Whether `given` is one of these; all are compared.
    fn contain(&self, given: &[u8]) -> bool {
        let given = Digest::from(Sha256::digest(given));
        let found = |found: Choice, known: &Digest| found | known.ct_eq(&given);
        self.0.iter().fold(Choice::from(0), found).into()
    }
}

impl std::fmt::Debug for Digests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(crate::secret::MASKED)
    }
}
