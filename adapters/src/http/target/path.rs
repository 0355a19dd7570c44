//! Paths: what a route appends to its upstream's URL, and why no event can leave it.

use url::Url;

use crate::{expression::Template, http::ConfigError};

/// Refuses what no event could make right, when the configuration loads.
pub(super) fn check_template(path: &Template) -> Result<(), ConfigError> {
    check(&literal_text(path.source())).map_err(|problem| ConfigError::new("path", problem))
}

/// Appends a rendered path to the upstream's.
pub(super) fn append(url: &mut Url, path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Ok(());
    }
    check(path)?;
    let base = url.path().trim_end_matches('/');
    let joined = format!("{base}/{}", path.strip_prefix('/').unwrap_or(path));
    url.set_path(&joined);
    Ok(())
}

fn check(path: &str) -> Result<(), &'static str> {
    if path.contains('?') {
        return Err("holds a `?`: write query parameters under `query:`");
    }
    if path.contains('#') {
        return Err("holds a `#`: a fragment is never sent");
    }
    if path.contains('\\') {
        return Err("holds a `\\`, which URL parsers take for a `/`");
    }
    if path.contains(|c: char| c.is_control()) {
        return Err("holds a control character, which URL parsers leave out");
    }
    // URL parsers resolve dot segments, in any spelling.
    let dots = |segment: &str| {
        let plain = segment.to_ascii_lowercase().replace("%2e", ".");
        plain == "." || plain == ".."
    };
    if path.split('/').any(dots) {
        return Err("holds a `.` or `..` segment");
    }
    Ok(())
}

/// The text of a template with an `x` for each placeholder. It has compiled, so it is balanced.
fn literal_text(source: &str) -> String {
    let mut literal = String::with_capacity(source.len());
    // What is open: braces and parentheses of jq, and its strings, which may interpolate.
    let mut open = Vec::new();
    let mut chars = source.chars().peekable();
    while let Some(c) = chars.next() {
        match (open.last(), c) {
            (None, '{' | '}') if chars.peek() == Some(&c) => {
                literal.push(c);
                chars.next();
            }
            (None, '{') => {
                literal.push('x');
                open.push('{');
            }
            (None, _) => literal.push(c),
            (Some('"'), '\\') => {
                if chars.next() == Some('(') {
                    open.push('(');
                }
            }
            (Some('"'), '"') => {
                open.pop();
            }
            (Some('"'), _) => {}
            (Some(_), '"' | '{' | '(') => open.push(c),
            (Some(_), '}' | ')') => {
                open.pop();
            }
            (Some(_), _) => {}
        }
    }
    literal
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn join(base: &str, path: &str) -> Result<String, &'static str> {
        let mut url = Url::parse(base).unwrap();
        append(&mut url, path).map(|()| url.to_string())
    }

    #[test]
    fn paths_join_with_one_slash() {
        let base = "https://api.example/v2";
        let cases = [
            (base, "/members/7", "https://api.example/v2/members/7"),
            ("https://api.example/v2/", "/members/7", "https://api.example/v2/members/7"),
            ("https://api.example/v2/", "members/7/", "https://api.example/v2/members/7/"),
            ("https://api.example", "/members", "https://api.example/members"),
            ("https://api.example/v2?key=1", "/a", "https://api.example/v2/a?key=1"),
            (base, "", "https://api.example/v2"),
            (base, "/a%2Fb%3F/...", "https://api.example/v2/a%2Fb%3F/..."),
            (base, "//a", "https://api.example/v2//a"),
            (base, "/@evil.example", "https://api.example/v2/@evil.example"),
        ];
        for (base, path, expected) in cases {
            assert_eq!(join(base, path).unwrap(), expected, "{base} {path}");
        }
    }

    #[test]
    fn s11_what_url_parsers_would_rewrite_is_refused() {
        for path in [
            "/..",
            "/.",
            "/a/../b",
            "/%2e%2E/b",
            "/.%2e",
            "/a/./",
            "/a?b",
            "/a#b",
            "/a\\..\\b",
            "/.\t.",
        ] {
            assert!(join("https://api.example/v2", path).is_err(), "{path}");
        }
    }

    #[test]
    fn the_literal_part_of_a_template_is_found_between_its_placeholders() {
        let cases = [
            ("/a/b", "/a/b"),
            ("/a/{.x}/b{.y}", "/a/x/bx"),
            ("/{{a}}/{.x}", "/{a}/x"),
            ("/{.a // {b: 1} | .b}/c", "/x/c"),
            (r#"/{"}" + .a}?q"#, "/x?q"),
            (r#"/{"\(.a + "}")?#"}/c"#, "/x/c"),
            (r#"/{"\"}"}/c"#, "/x/c"),
            ("/{.a?}", "/x"),
        ];
        for (source, literal) in cases {
            assert_eq!(literal_text(source), literal, "{source}");
        }
    }

    proptest! {
        #[test]
        fn s11_no_path_leaves_the_configured_one(path in "[ -~\\t\\n./%2eE\\\\?#@:é]{0,40}") {
            if let Ok(joined) = join("https://api.example/v2/base", &path) {
                let url = Url::parse(&joined).unwrap();
                prop_assert_eq!(url.host_str(), Some("api.example"));
                let inside = url.path() == "/v2/base" || url.path().starts_with("/v2/base/");
                prop_assert!(inside, "{} became {}", path, joined);
                let slashes = |text: &str| text.matches('/').count();
                let added = usize::from(!path.is_empty() && !path.starts_with('/'));
                prop_assert_eq!(slashes(url.path()), 2 + slashes(&path) + added);
                prop_assert!(url.query().is_none() && url.fragment().is_none());
            }
        }
    }
}
