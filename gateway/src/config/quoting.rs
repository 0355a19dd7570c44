//! "Quote it": what YAML reads otherwise than it was meant.

use super::{
    schema::Kind,
    tree::{self, Node, Scalar},
};

/// What to say of a list or map where one value is due.
pub(crate) fn not_a_scalar(kind: Kind, node: &Node) -> String {
    let begins = if matches!(node.kind, tree::Kind::List(_)) { "[" } else { "{" };
    match kind {
        Kind::Template(_) | Kind::RequestPath | Kind::Expression | Kind::Body => format!(
            "YAML reads this as {}, for it begins with `{begins}` or holds `: `; quote it: '{}'",
            node.what(),
            if matches!(kind, Kind::Template(_) | Kind::RequestPath) {
                "{.data.id}"
            } else {
                "…"
            },
        ),
        _ => format!("must be one value, not {}; if it is text, quote it", node.what()),
    }
}

/// `message` with a hint when a comment may have swallowed part of the value.
pub(crate) fn with_hint(scalar: &Scalar, message: String) -> String {
    if scalar.comment_follows() {
        return format!(
            "{message}\nYAML ends this value before ` #`, which begins a comment; if that is part \
             of it, quote it: '…'"
        );
    }
    message
}
