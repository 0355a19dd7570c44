use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// What of a template is text.
fn escaped(text: &str) -> String {
    text.replace('{', "{{").replace('}', "}}")
}

/// Text that is apt to be taken for something else.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), r#"[{}"\\#().|a-c \n]{0,24}"#]
}

/// A template's parts: text, or the name of a field of the data.
fn any_parts() -> impl Strategy<Value = Vec<Result<String, &'static str>>> {
    let field = prop::sample::select(vec!["a", "b", "c"]);
    prop::collection::vec(prop_oneof![any_text().prop_map(Ok), field.prop_map(Err)], 0..6)
}

/// A number as JSON may write it; minus zero is zero.
fn any_number() -> impl Strategy<Value = String> {
    "0|-?[1-9][0-9]{0,24}(\\.[0-9]{1,12})?"
}

fn rendered(template: &str, place: Place, data: &Value) -> Result<Option<String>, String> {
    render(template, place, &data.to_string())
}

proptest! {
    #[test]
    fn any_text_can_be_written_as_a_template(text in any_text()) {
        let template = Template::compile(&escaped(&text)).unwrap();
        prop_assert!(template.is_literal());
        prop_assert_eq!(rendered(&escaped(&text), Place::Query, &json!(null)), Ok(Some(text)));
    }

    #[test]
    fn text_and_placeholders_come_out_in_their_order(
        parts in any_parts(),
        values in prop::array::uniform3(any_text()),
    ) {
        let [a, b, c] = values;
        let data = json!({ "a": a, "b": b, "c": c });
        let (mut source, mut expected) = (String::new(), String::new());
        for part in parts {
            match part {
                Ok(text) => {
                    source.push_str(&escaped(&text));
                    expected.push_str(&text);
                }
                Err(field) => {
                    source.push_str(&format!("{{.data.{field}}}"));
                    expected.push_str(data[field].as_str().unwrap());
                }
            }
        }
        prop_assert_eq!(rendered(&source, Place::Query, &data), Ok(Some(expected)));
    }

    #[test]
    fn any_text_in_a_path_is_one_segment_and_comes_back_when_decoded(text in any_text()) {
        let path = rendered("/a/{.data}/b", Place::Path, &json!(text));
        if text.is_empty() || text == "." || text == ".." {
            prop_assert!(path.is_err());
        } else {
            let path = path.unwrap().unwrap();
            let segments: Vec<&str> = path.split('/').collect();
            prop_assert_eq!(segments.len(), 4);
            let decoded = percent_encoding::percent_decode_str(segments[2]).decode_utf8().unwrap();
            prop_assert_eq!(decoded, text);
        }
    }

    #[test]
    fn any_text_in_a_header_or_key_is_itself_or_refused(text in any_text()) {
        let bad = text.chars().any(char::is_control);
        let template = "{.data}";
        let header = rendered(template, Place::Header, &json!(text));
        prop_assert_eq!(header.ok(), (!bad).then(|| Some(text.clone())));
        let key = rendered(template, Place::RoutingKey, &json!(text));
        prop_assert_eq!(key.ok(), (!bad && text.len() <= 255).then_some(Some(text)));
    }

    #[test]
    fn any_number_keeps_its_text(number in any_number()) {
        let data = format!("{{\"n\": {number} }}");
        prop_assert_eq!(render("{.data.n}", Place::Query, &data), Ok(Some(number.clone())));
        prop_assert_eq!(run("[.data.n]", &data), Ok(format!("[{number}]")));
    }

    #[test]
    fn any_text_comes_back_from_the_encodings_that_jq_has(text in any_text()) {
        let data = json!(text).to_string();
        for code in ["tojson | fromjson", "@base64 | @base64d", "explode | implode"] {
            let back = run(&format!(".data | {code}"), &data).unwrap();
            let back: Value = serde_json::from_str(&back).unwrap();
            prop_assert_eq!(back.as_str(), Some(&*text), "{}", code);
        }
        let encoded: Value = serde_json::from_str(&run(".data | @uri", &data).unwrap()).unwrap();
        let encoded = encoded.as_str().unwrap();
        prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_graphic()));
        let decoded = percent_encoding::percent_decode_str(encoded).decode_utf8().unwrap();
        prop_assert_eq!(decoded, text);
    }
}
