//! One normalisation of paths, for those configured and those requested.
//!
//! Escapes of characters that need none are undone (`%61` is `a`), the others are written with
//! capitals (`%2f` is `%2F`, and no slash): RFC 3986 §6.2.2. Nothing else is touched: a slash at
//! the end counts, dot segments and empty segments match nothing but themselves.

/// The one spelling of `path`.
#[must_use]
pub fn normalise(path: &str) -> String {
    let mut normal = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        normal.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let digits = rest.get(..2).filter(|two| two.bytes().all(|b| b.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if is_unreserved(byte) => normal.push(char::from(byte)),
            Some(byte) => normal.push_str(&format!("%{byte:02X}")),
            None => {
                normal.push('%');
                continue;
            }
        }
        rest = &rest[2..];
    }
    normal.push_str(rest);
    normal
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::normalise;

    #[test]
    fn n19_escapes_have_one_spelling_and_nothing_is_decoded_twice() {
        for (path, expected) in [
            ("/hooks/loyalty", "/hooks/loyalty"),
            ("/hooks/%6Coyalty", "/hooks/loyalty"),
            ("/hooks%2floyalty", "/hooks%2Floyalty"),
            ("/hooks/%252e", "/hooks/%252e"),
            ("/hooks/%2e%2E/x", "/hooks/../x"),
            ("/hooks/loyalty/", "/hooks/loyalty/"),
            ("//hooks", "//hooks"),
            ("/a%", "/a%"),
            ("/a%zz", "/a%zz"),
            ("/%c3%bc", "/%C3%BC"),
        ] {
            assert_eq!(normalise(path), expected, "{path}");
        }
    }
}
