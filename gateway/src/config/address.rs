//! URLs and networks. The user part of a URL is a secret, so no message quotes one.

use ipnet::IpNet;
use tidegate_adapters::secret::Mask;
use url::Url;

use super::schema::UrlUse;

/// Whether `text` is a URL for this use. Its credentials go to `mask`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check(text: &str, purpose: UrlUse, mask: &Mask) -> Result<(), String> {
    learn_userinfo(text, mask);
    let url = Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
    let schemes: &[&str] = match purpose {
        UrlUse::Broker => &["amqp", "amqps"],
        _ => &["http", "https"],
    };
    if !schemes.contains(&url.scheme()) {
        let (scheme, wanted) = (url.scheme(), schemes.join(":// or "));
        return Err(format!("must begin with {wanted}://, not with {scheme}:"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("names no host".into());
    }
    let has_user = !url.username().is_empty() || url.password().is_some();
    if has_user && matches!(purpose, UrlUse::Token | UrlUse::Public | UrlUse::Collector) {
        return Err("must not hold a user and password (`user:password@`)".into());
    }
    if url.fragment().is_some() {
        return Err("must not have a fragment (`#…`)".into());
    }
    match (purpose, url.query()) {
        (UrlUse::Token, _) | (_, None) => {}
        (UrlUse::Broker, _) => {
            return Err(
                "must not have a query (`?…`); `heartbeat` and `tls` are keys beside it".into()
            );
        }
        (UrlUse::Public | UrlUse::Collector, _) => {
            return Err("must not have a query (`?…`)".into());
        }
        _ => {
            return Err("must not have a query (`?…`); a route's `to.http.query` has one, and \
                `auth.query` for secrets"
                .into());
        }
    }
    if purpose == UrlUse::Proxy && !matches!(url.path(), "" | "/") {
        return Err("a proxy has no path".into());
    }
    if purpose == UrlUse::Broker && url.path().trim_start_matches('/').contains('/') {
        return Err("names a virtual host with a bare `/`; write it as %2f".into());
    }
    Ok(())
}

/// Found by hand, for what does not parse as a URL may hold a password all the same.
fn learn_userinfo(text: &str, mask: &Mask) {
    let Some((_, rest)) = text.split_once("://") else { return };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let Some((userinfo, _)) = authority.rsplit_once('@') else { return };
    mask.add(userinfo);
    for piece in userinfo.splitn(2, ':') {
        mask.add(piece);
        mask.add(&percent_encoding::percent_decode_str(piece).decode_utf8_lossy());
    }
}

/// A network in CIDR notation; a single address is a network of one.
///
/// # Errors
/// What to write.
pub(crate) fn network(text: &str) -> Result<String, String> {
    let network = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| "write 10.0.0.0/8, 192.168.1.7 or fd00::/8".to_owned())?;
    if network.trunc() != network {
        return Err(format!("it has bits beyond its prefix; write {}", network.trunc()));
    }
    Ok(network.to_string())
}
