//! What `deploy/` holds, held against the product: the image, the manifests, what is watched, and
//! the operator's page.

mod backup;
mod image;
mod jail;
mod manifests;
mod page;
mod watched;

use std::path::PathBuf;

/// The Python that `tests/install-deploy-tools.sh` installs.
pub(crate) const PYTHON: &str = "target/deploy-tools/bin/python";

/// A file of the repository.
pub(crate) fn file(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("in the repository").join(path)
}

/// Its text.
pub(crate) fn text(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
