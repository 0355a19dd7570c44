use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::prelude::*;

use super::*;

fn mask_of(values: &[&str]) -> Mask {
    let mask = Mask::default();
    values.iter().for_each(|value| mask.add(value));
    mask
}

#[test]
fn a_secret_shows_nothing_of_itself() {
    let secret = Secret::new("correct horse");
    assert_eq!(format!("{secret:?}"), "***");
    assert_eq!(format!("{:?}", Some(&secret)), "Some(***)");
    assert_eq!(secret.expose(), "correct horse");
    assert_eq!(format!("{:?}", mask_of(&["correct horse"])), "Mask(1 values)");
}

#[test]
fn every_place_of_every_secret_is_masked() {
    let mask = mask_of(&["first-secret", "second-secret"]);
    let text = "first-secret, second-secret and first-secret again";
    assert_eq!(mask.apply(text), "***, *** and *** again");
    assert_eq!(mask.apply("nothing of it"), "nothing of it");
    assert_eq!(mask.apply(""), "");
    assert_eq!(Mask::default().apply("first-secret"), "first-secret");
}

#[test]
fn shorter_than_eight_characters_is_not_masked_in_free_text() {
    let mask = mask_of(&["seven77", "éééé", ""]);
    assert_eq!(mask.apply("seven77 éééé"), "seven77 éééé");
    assert_eq!(mask_of(&["eight888"]).apply("eight888"), "***");
}

#[test]
fn a_secret_is_found_in_the_forms_it_takes_on_the_wire() {
    let value = r#"p@ss/word+"quoted" & more=~!"#;
    let mask = mask_of(&[value]);
    let url = {
        let mut url = url::Url::parse("http://api.example").unwrap();
        url.query_pairs_mut().append_pair("key", value);
        url.to_string()
    };
    let forms = [
        value.to_owned(),
        serde_json::Value::from(value).to_string(),
        serde_json::Value::from(serde_json::Value::from(value).to_string()).to_string(),
        serde_json::Value::from(value).to_string().replace('/', r"\/"),
        url,
        utf8_percent_encode(value, UNRESERVED).to_string(),
        STANDARD.encode(value),
        STANDARD.encode(value).replace('+', "-").replace('/', "_"),
    ];
    for form in forms {
        let text = format!("before {form} after");
        let masked = mask.apply(&text);
        assert!(masked.contains(MASKED), "{form}");
        assert!(!masked.contains("word") && !masked.contains("cEBzcy"), "{masked}");
        assert!(masked.starts_with("before ") && masked.contains(" after"), "{masked}");
    }
}

#[test]
fn lower_case_percent_encoding_is_found() {
    let mask = mask_of(&["a/b+c=d%e:f"]);
    assert_eq!(mask.apply("?key=a%2Fb%2Bc%3Dd%25e%3Af&x"), "?key=***&x");
    assert_eq!(mask.apply("?key=a%2fb%2bc%3dd%25e%3af&x"), "?key=***&x");
}

#[test]
fn a_secret_that_holds_another_is_masked_whole() {
    let mask = mask_of(&["password", "password-and-more"]);
    assert_eq!(mask.apply("password-and-more; password"), "***; ***");
}

#[test]
fn secrets_that_overlap_are_both_masked_whole() {
    let mask = mask_of(&["abcdefgh", "efghijkl", "ijklmnop"]);
    assert_eq!(mask.apply("-abcdefghijklmnop-"), "-***-");
    let inside = mask_of(&["longer-than-that", "onger-th", "that-and-some"]);
    assert_eq!(inside.apply("[longer-than-that-and-some]"), "[***]");
}

#[test]
fn a_value_added_later_is_masked_by_every_clone() {
    let mask = mask_of(&["configured"]);
    let clone = mask.clone();
    assert_eq!(clone.apply("configured obtained-token"), "*** obtained-token");
    mask.add_passing("obtained-token");
    assert_eq!(clone.apply("configured obtained-token"), "*** ***");
}

#[test]
fn tokens_go_oldest_first_and_never_push_out_what_is_configured() {
    let mask = mask_of(&["configured-secret"]);
    mask.add_passing("the-first-and-much-the-longest-token-of-them-all");
    mask.add_passing("token-in-use-still");
    for n in 0..Mask::PASSING_MOST - 1 {
        mask.add_passing(&format!("token-{n:08}"));
        // Used all the while: the same token comes back.
        mask.add_passing("token-in-use-still");
    }
    let text = "configured-secret token-in-use-still token-00000000 \
                the-first-and-much-the-longest-token-of-them-all";
    let shown = mask.apply(text);
    assert_eq!(shown, "*** *** *** the-first-and-much-the-longest-token-of-them-all");
    mask.add_passing("one-more-token");
    assert_eq!(mask.apply("token-00000000 token-00000001"), "token-00000000 ***");
    assert_eq!(mask.apply("one-more-token"), "***");
}

#[test]
fn a_configured_secret_that_is_obtained_too_stays_for_good() {
    let mask = mask_of(&["configured-secret"]);
    mask.add_passing("configured-secret");
    (0..=Mask::PASSING_MOST).for_each(|n| mask.add_passing(&format!("token-{n:08}")));
    assert_eq!(mask.apply("configured-secret"), MASKED);
}

proptest! {
    #[test]
    fn no_secret_survives_and_nothing_else_is_lost(
        secrets in prop::collection::vec("[ab%/é]{8,12}", 0..5),
        pieces in prop::collection::vec("[ab%/é-]{0,12}", 0..6),
    ) {
        let mask = mask_of(&secrets.iter().map(String::as_str).collect::<Vec<_>>());
        let text: String = pieces.iter().enumerate()
            .map(|(n, piece)| piece.clone() + secrets.get(n).map_or("", String::as_str))
            .collect();
        let masked = mask.apply(&text);
        for secret in &secrets {
            prop_assert!(!masked.contains(secret.as_str()), "{secret} in {masked}");
        }
        // What is between the masks stood in the text in that order.
        let mut rest = text.as_str();
        for part in masked.split(MASKED) {
            let at = rest.find(part);
            prop_assert!(at.is_some(), "{part} of {masked}");
            rest = &rest[at.unwrap_or(0) + part.len()..];
        }
    }
}
