//! What a preset reads from a body, once the signature holds.

use serde::de::DeserializeOwned;

use crate::event;

/// The members of a JSON body that `T` names; `None` when it is no JSON, nests too deep, or they
/// are of another kind. What is wrong with a genuine body is for its mapping to say.
pub(super) fn json<T: DeserializeOwned>(raw: &[u8]) -> Option<T> {
    event::check_depth(raw).ok()?;
    serde_json::from_slice(raw).ok()
}

/// An id that can tell messages apart.
pub(super) fn id(id: Option<String>) -> Option<String> {
    id.filter(|id| !id.is_empty())
}
