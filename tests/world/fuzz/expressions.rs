//! Expressions and templates: whatever a configuration holds and whatever they are run on.

use bytes::Bytes;
use serde_json::{Value, value::RawValue};
use tidegate_adapters::expression::{
    Expression, ExpressionError, Input, OUTPUT_MAX, Output, Place, Template, Variables,
};

use super::{answers, split_once};

const PLACES: [Place; 6] = [
    Place::Path,
    Place::Query,
    Place::Header,
    Place::RoutingKey,
    Place::Field,
    Place::OptionalField,
];

/// A program or template, an empty line, and the JSON it runs on.
///
/// # Panics
/// When two runs differ, when what comes out is no JSON, too large or unfit for its place, or when
/// a template means something else than the expression in it.
pub fn expressions(input: &[u8]) {
    let (source, json) = split_once(input, b"\n\n").unwrap_or((input, b"null"));
    let Ok(source) = std::str::from_utf8(source) else { return };
    // The one thing that two runs see differently.
    if source.contains("now") {
        return;
    }
    let input = Input::json(Bytes::copy_from_slice(json))
        .or_else(|_| Input::json(Bytes::from_static(b"{\"a\":[1,{\"b\":\"x\"}],\"n\":12.50}")))
        .expect("one of them is JSON");
    let variables = Variables {
        route: "orders".into(),
        delivery: "7".to_owned(),
        attempt: 2,
        idempotency_key: "k".to_owned(),
        event: None,
    };
    assert_literal(source, &input, &variables);
    match compiled(source, Expression::compile) {
        Ok(expression) => {
            assert_runs(&expression, &input, &variables, json.len());
            assert_path_agrees(source, &expression, &input, &variables);
            assert_template_agrees(source, &expression, &input, &variables);
        }
        Err(error) => assert_says_where(&error, source),
    }
    match compiled(source, Template::compile) {
        Ok(template) => assert_renders(&template, &input, &variables),
        Err(error) => assert_says_where(&error, source),
    }
}

/// Compiles twice, which must come to the same.
fn compiled<T>(
    source: &str,
    compile: fn(&str) -> Result<T, ExpressionError>,
) -> Result<T, ExpressionError> {
    let first = compile(source);
    assert_eq!(first.as_ref().err(), compile(source).err().as_ref());
    first
}

fn assert_says_where(error: &ExpressionError, source: &str) {
    assert!(!error.message.is_empty());
    assert!(error.offset.is_none_or(|offset| source.is_char_boundary(offset)), "{error:?}");
}

fn assert_runs(expression: &Expression, input: &Input, variables: &Variables, length: usize) {
    let run = || expression.run_first(input, variables, 3).map(texts);
    let outputs = run();
    assert_eq!(outputs, run(), "`{}`", expression.source());
    for output in outputs.iter().flatten() {
        assert!(output.len() <= OUTPUT_MAX.max(length), "{} bytes", output.len());
        let parsed = serde_json::from_slice::<&RawValue>(output);
        assert!(parsed.is_ok(), "`{}` gave {output:?}", expression.source());
    }
    assert!(outputs.is_ok_and(|outputs| outputs.len() <= 3) || run().is_err());
}

fn texts(outputs: Vec<Output>) -> Vec<Bytes> {
    outputs.iter().map(Output::to_json).collect()
}

/// A bare path is not run but sliced; run as a program it gives the same value.
fn assert_path_agrees(source: &str, sliced: &Expression, input: &Input, variables: &Variables) {
    let simple = |c: char| c.is_ascii_alphanumeric() || "._[]\"-".contains(c);
    if !source.starts_with('.') || !source.chars().all(simple) || source.len() > 100 {
        return;
    }
    let Ok(run) = Expression::compile(&format!("({source}) | .")) else { return };
    let (sliced, run) = (sliced.run(input, variables), run.run(input, variables));
    if let (Ok(sliced), Ok(run)) = (&sliced, &run) {
        let value = |output: &Output| serde_json::from_slice::<Value>(&output.to_json()).ok();
        if let (Some(sliced), Some(run)) = (value(sliced), value(run)) {
            assert_eq!(sliced, run, "`{source}`");
        }
        return;
    }
    // The interpreter's objects may have numbers for keys, so that asking one for a number is
    // null; a bare path says what jq says.
    let lenient = run.as_ref().is_ok_and(Output::is_null);
    assert!(sliced.is_err() && (run.is_err() || lenient), "`{source}`: {sliced:?} {run:?}");
}

/// A template that is one placeholder gives what its expression gives.
fn assert_template_agrees(
    source: &str,
    expression: &Expression,
    input: &Input,
    variables: &Variables,
) {
    // A comment takes the closing brace with it; a string within a string's program is not looked
    // into; and the space around the program counts towards how long it may be.
    if source.contains('#') || source.contains("\\(") || source.len() > 8000 {
        return;
    }
    let template = Template::compile(&format!("{{ {source} }}")).expect("it compiled without");
    let rendered = template.render(input, variables, Place::Query);
    match expression.run(input, variables) {
        Err(_) => assert!(rendered.is_err(), "`{source}`"),
        Ok(output) if output.is_null() => assert_eq!(rendered, Ok(None)),
        Ok(output) => match output.as_text() {
            Some(text) => assert_eq!(rendered, Ok(Some(text))),
            None => {
                let json = output.to_json();
                let composite = json.trim_ascii().starts_with(b"{") || json.starts_with(b"[");
                assert!(rendered.is_ok() != composite, "`{source}`: {rendered:?}");
            }
        },
    }
}

/// Any text can be written as a template.
fn assert_literal(text: &str, input: &Input, variables: &Variables) {
    let escaped = text.replace('{', "{{").replace('}', "}}");
    let template = Template::compile(&escaped).expect("a template without placeholders");
    assert!(template.is_literal());
    let rendered = template.render(input, variables, Place::Query);
    assert_eq!(rendered, Ok(Some(text.to_owned())));
}

fn assert_renders(template: &Template, input: &Input, variables: &Variables) {
    for place in PLACES {
        let _ = template.check_place(place);
        let rendered = template.render(input, variables, place);
        assert_eq!(rendered, template.render(input, variables, place), "{place:?}");
        let Ok(rendered) = rendered else { continue };
        let Some(text) = rendered else {
            assert!(matches!(place, Place::Query | Place::Header | Place::OptionalField));
            continue;
        };
        match place {
            Place::Header | Place::RoutingKey => assert!(!text.chars().any(char::is_control)),
            Place::Path => assert_path(template.source(), input),
            _ => {}
        }
        assert!(place != Place::RoutingKey || text.len() <= 255);
    }
}

/// As a route's path it stays below its upstream's, and beside no query.
fn assert_path(template: &str, input: &Input) {
    let Some(url) = answers::url_of(template, input) else { return };
    assert_eq!(url.host_str(), Some("api.example"), "{url}");
    assert!(url.path() == "/v1" || url.path().starts_with("/v1/"), "`{template}`: {url}");
    assert!(url.query().is_none() && url.fragment().is_none(), "`{template}`: {url}");
}
