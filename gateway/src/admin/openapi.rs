//! `/openapi.json`: this listener, described for programs (OpenAPI 3.1).

use std::sync::OnceLock;

use serde_json::Value;

/// As it is written, without a version.
const WRITTEN: &str = include_str!("openapi.json");

/// The document, for the version that runs.
pub(super) fn document() -> String {
    static DOCUMENT: OnceLock<String> = OnceLock::new();
    let fill = || {
        let mut document: Value = serde_json::from_str(WRITTEN).expect("a test parses it");
        document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
        document.to_string()
    };
    DOCUMENT.get_or_init(fill).clone()
}
