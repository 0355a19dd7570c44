//! Signatures of outgoing requests, over the bytes as they go out.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::http::{
    ConfigError, HmacConfig, HmacEncoding, StandardWebhooksConfig, header_name,
    hmac::{self, Key, Piece, Signed},
};

/// What may be signed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts<'a> {
    /// The message's id: its idempotency key.
    pub(crate) id: &'a str,
    /// Seconds since the Unix epoch, at sending time.
    pub(crate) timestamp_s: i64,
    /// The whole address as requested.
    pub(crate) url: &'a str,
    /// The body's bytes.
    pub(crate) raw: &'a [u8],
}

/// Signs requests.
pub(crate) enum Signer {
    /// <https://www.standardwebhooks.com>, symmetric scheme `v1`.
    StandardWebhooks {
        /// The decoded key.
        key: Key,
    },
    /// An HMAC (RFC 2104) in a header.
    Hmac(HmacSigner),
}

/// A plain HMAC, as configured.
pub(crate) struct HmacSigner {
    header: HeaderName,
    encoding: HmacEncoding,
    prefix: String,
    key: Key,
    signed: Vec<Piece>,
    timestamp_header: Option<HeaderName>,
}

impl Signer {
    /// A signer by Standard Webhooks.
    ///
    /// # Errors
    /// When the secret is not Base64, or empty.
    pub(crate) fn standard_webhooks(config: &StandardWebhooksConfig) -> Result<Self, ConfigError> {
        let key = hmac::webhook_key(config.secret.expose())
            .map_err(|problem| ConfigError::new("auth.standard_webhooks.secret", problem))?;
        Ok(Self::StandardWebhooks { key })
    }

    /// A signer by plain HMAC.
    ///
    /// # Errors
    /// An empty secret, a header that is none, an unknown placeholder, or a timestamp that is
    /// signed and not sent.
    pub(crate) fn hmac(config: &HmacConfig) -> Result<Self, ConfigError> {
        let key = config.secret.expose().as_bytes();
        if key.is_empty() {
            return Err(ConfigError::new("auth.hmac.secret", "is empty"));
        }
        HeaderValue::from_str(&config.prefix)
            .map_err(|_| ConfigError::new("auth.hmac.prefix", "does not fit into a header"))?;
        let signed = hmac::pieces("auth.hmac.signed", &config.signed)?;
        let timestamp_header = config
            .timestamp_header
            .as_deref()
            .map(|name| header_name("auth.hmac.timestamp_header", name))
            .transpose()?;
        if signed.contains(&Piece::Timestamp) && timestamp_header.is_none() {
            return Err(ConfigError::new(
                "auth.hmac.timestamp_header",
                "is missing: `signed` names {timestamp}, so the receiver must be sent it",
            ));
        }
        Ok(Self::Hmac(HmacSigner {
            header: header_name("auth.hmac.header", &config.header)?,
            encoding: config.encoding,
            prefix: config.prefix.clone(),
            key: Key::new(config.algorithm, key),
            signed,
            timestamp_header,
        }))
    }

    /// The headers it sets.
    pub(crate) fn header_names(&self) -> Vec<HeaderName> {
        match self {
            Self::StandardWebhooks { .. } => WEBHOOK_HEADERS.to_vec(),
            Self::Hmac(hmac) => {
                let timestamp = hmac.timestamp_header.clone();
                std::iter::once(hmac.header.clone()).chain(timestamp).collect()
            }
        }
    }

    /// Adds the signature of `parts`, and what goes with it, to `headers`.
    pub(crate) fn sign(&self, parts: &Parts<'_>, headers: &mut HeaderMap) {
        let timestamp = parts.timestamp_s.to_string();
        let mut set = |name: &HeaderName, value: &str| {
            let value =
                HeaderValue::from_str(value).expect("ids, numbers, hex and Base64 are ASCII");
            headers.insert(name, value);
        };
        match self {
            Self::StandardWebhooks { key } => {
                let signed = [parts.id.as_bytes(), b".", timestamp.as_bytes(), b".", parts.raw];
                let [id_name, timestamp_name, signature_name] = &WEBHOOK_HEADERS;
                set(id_name, parts.id);
                set(timestamp_name, &timestamp);
                let signature = key.mac(signed);
                set(signature_name, &format!("v1,{}", STANDARD.encode(signature)));
            }
            Self::Hmac(signer) => {
                let Parts { id, url, raw, .. } = *parts;
                let signed = Signed { id, timestamp: &timestamp, url, raw };
                let signature =
                    signer.key.mac(signer.signed.iter().map(|piece| signed.piece(piece)));
                let signature = match signer.encoding {
                    HmacEncoding::Hex => hmac::hex(&signature),
                    HmacEncoding::Base64 => STANDARD.encode(signature),
                };
                set(&signer.header, &format!("{}{signature}", signer.prefix));
                if let Some(name) = &signer.timestamp_header {
                    set(name, &timestamp);
                }
            }
        }
    }
}

const WEBHOOK_HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("webhook-id"),
    HeaderName::from_static("webhook-timestamp"),
    HeaderName::from_static("webhook-signature"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{http::HmacAlgorithm, secret::Secret};

    fn config(signed: &str) -> HmacConfig {
        HmacConfig {
            header: "X-Signature".into(),
            algorithm: HmacAlgorithm::Sha256,
            encoding: HmacEncoding::Hex,
            prefix: String::new(),
            secret: Secret::new("key"),
            signed: signed.into(),
            timestamp_header: None,
        }
    }

    fn signed(signer: &Signer, parts: &Parts<'_>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        signer.sign(parts, &mut headers);
        headers
    }

    /// The example of the Standard Webhooks reference libraries (`standardwebhooks`, test
    /// `sign_function_works`).
    #[test]
    fn standard_webhooks_signs_as_the_reference_libraries_do() {
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let signer = Signer::standard_webhooks(&StandardWebhooksConfig { secret }).unwrap();
        let headers = signed(
            &signer,
            &Parts {
                id: "msg_p5jXN8AQM9LWM0D4loKWxJek",
                timestamp_s: 1_614_265_330,
                url: "https://example.com/",
                raw: br#"{"test": 2432232314}"#,
            },
        );
        assert_eq!(headers["webhook-id"], "msg_p5jXN8AQM9LWM0D4loKWxJek");
        assert_eq!(headers["webhook-timestamp"], "1614265330");
        assert_eq!(headers["webhook-signature"], "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn what_is_signed_is_byte_exact() {
        let mut config = config("v0:{timestamp}:{id}:{url}:{raw}");
        config.timestamp_header = Some("X-Timestamp".into());
        config.prefix = "v0=".into();
        let parts =
            Parts { id: "i", timestamp_s: 7, url: "https://x.example/a?b=%20", raw: b"\xff{id}\n" };
        let headers = signed(&Signer::hmac(&config).unwrap(), &parts);
        let exact: [&[u8]; 1] = [b"v0:7:i:https://x.example/a?b=%20:\xff{id}\n"];
        let expected = hmac::hex(&Key::new(HmacAlgorithm::Sha256, b"key").mac(exact));
        assert_eq!(headers["x-signature"], format!("v0={expected}"));
        assert_eq!(headers["x-timestamp"], "7");
    }

    #[test]
    fn base64_and_long_keys_work() {
        let mut config = config("{raw}");
        config.encoding = HmacEncoding::Base64;
        // RFC 4231 §4.7, test case 6, has a key of 131 bytes 0xaa; keys are text here, so the
        // expectation for 200 letters comes from the function itself over a hashed key (RFC 2104).
        config.secret = Secret::new("k".repeat(200));
        let parts = Parts { id: "", timestamp_s: 0, url: "", raw: b"data" };
        let headers = signed(&Signer::hmac(&config).unwrap(), &parts);
        let hashed = <sha2::Sha256 as sha2::Digest>::digest("k".repeat(200));
        let data: [&[u8]; 1] = [b"data"];
        let expected = STANDARD.encode(Key::new(HmacAlgorithm::Sha256, &hashed).mac(data));
        assert_eq!(headers["x-signature"], expected);
    }

    #[test]
    fn what_cannot_work_is_refused_when_the_configuration_loads() {
        let cases = [
            ("{body}", "auth.hmac.signed: has a brace that starts none of"),
            ("{raw", "auth.hmac.signed: has a brace"),
            ("raw}", "auth.hmac.signed: has a brace"),
            ("{timestamp}", "auth.hmac.signed: must name {raw}"),
            ("{timestamp}.{raw}", "auth.hmac.timestamp_header: is missing"),
        ];
        for (text, expected) in cases {
            let error = Signer::hmac(&config(text)).err().unwrap().to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
        let mut empty = config("{raw}");
        empty.secret = Secret::new("");
        assert!(Signer::hmac(&empty).is_err());
        for secret in ["whsec_", "whsec_not base64", ""] {
            let secret = Secret::new(secret);
            assert!(Signer::standard_webhooks(&StandardWebhooksConfig { secret }).is_err());
        }
    }
}
