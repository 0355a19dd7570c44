mod round_trips;

use std::collections::BTreeMap;

use super::*;
use crate::event::Data;

fn event(data: &str) -> Arc<Event> {
    Arc::new(Event {
        id: "e-1".to_owned(),
        source: "/orders".to_owned(),
        kind: "order.confirmed.v1".to_owned(),
        subject: None,
        time: None,
        datacontenttype: Some("application/json".to_owned()),
        dataschema: None,
        extensions: BTreeMap::new(),
        traceparent: None,
        hops: 0,
        data: Data::Json(data.to_owned().into()),
    })
}

fn run(code: &str, data: &str) -> Result<String, String> {
    let expression = Expression::compile(code).map_err(|error| format!("compile: {error}"))?;
    let output = expression
        .run(&Input::event(event(data)), &Variables::default())
        .map_err(|error| error.to_string())?;
    Ok(String::from_utf8(output.to_json().to_vec()).unwrap())
}

fn render(template: &str, place: Place, data: &str) -> Result<Option<String>, String> {
    let template = Template::compile(template).map_err(|error| format!("compile: {error}"))?;
    template.check_place(place).map_err(|error| format!("place: {error}"))?;
    template
        .render(&Input::event(event(data)), &Variables::default(), place)
        .map_err(|error| error.to_string())
}

#[test]
fn expressions_are_jq() {
    let data = r#"{"total": 12.5, "items": [{"n": 1}, {"n": 2}], "name": "Ann"}"#;
    let table = [
        ("{points: (.data.total | floor), reference: .id}", r#"{"points":12,"reference":"e-1"}"#),
        ("[.data.items[].n] | add", "3"),
        (".data.items | map(.n * 2)", "[2,4]"),
        ("if .data.total > 10 then \"big\" else \"small\" end", r#""big""#),
        ("reduce .data.items[] as $i (0; . + $i.n)", "3"),
        ("\"Dear \\(.data.name)\"", r#""Dear Ann""#),
        (".data.items | map(select(.n > 1)) | length", "1"),
        (".data | keys", r#"["items","name","total"]"#),
        ("def double: . * 2; .data.total | double", "25.0"),
        ("[..] | length > 5", "true"),
        (".data | to_entries | map(.key) | join(\",\")", r#""total,items,name""#),
        (".data | del(.items) | .total |= 3", r#"{"total":3,"name":"Ann"}"#),
        (".data | map_values(type)", r#"{"total":"number","items":"array","name":"string"}"#),
        (".data.missing // \"none\"", r#""none""#),
        (".data.name | test(\"^A\")", "true"),
        (".data.name | ascii_downcase | @base64", r#""YW5u""#),
        (".data.items[0] += {m: 1} | .data.items[0]", r#"{"n":1,"m":1}"#),
        (".data | [paths] | length", "7"),
        (".data | path(.items[0].n)", r#"["items",0,"n"]"#),
        ("[.data.items[] | .n] | sort_by(-.) | first", "2"),
        ("[limit(1; .data.items[])] | length", "1"),
        (".data | with_entries(.value |= tojson) | .total", r#""12.5""#),
    ];
    for (code, expected) in table {
        assert_eq!(run(code, data).as_deref(), Ok(expected), "{code}");
    }
}

#[test]
fn numbers_keep_their_text_and_bare_paths_their_bytes() {
    let data = r#"{"a": 12.50, "b": 12345678901234567890, "c" : {"x":1,"x": 1.0 }}"#;
    assert_eq!(run(".data", data).as_deref(), Ok(data));
    assert_eq!(run(".data.c", data).as_deref(), Ok(r#"{"x":1,"x": 1.0 }"#));
    assert_eq!(run(".data[\"a\"]", data).as_deref(), Ok("12.50"));
    let mapped = run("{a: .data.a, b: .data.b}", data);
    assert_eq!(mapped.as_deref(), Ok(r#"{"a":12.50,"b":12345678901234567890}"#));
}

#[test]
fn bare_paths_agree_with_jq() {
    let data = r#"{"a": {"b": [10, {"c": null}, "x"]}, "k\u0065y": 1, "dup": 1, "dup": 2, "é": 3}"#;
    let paths = [
        ".",
        ".data",
        ".id",
        ".type",
        ".data.a",
        ".data.a.b[0]",
        ".data.a.b[-1]",
        ".data.a.b[7]",
        ".data.a.b[-9]",
        ".data.a.b[1].c.d",
        ".data.key",
        ".data.dup",
        ".data.missing.more",
        ".data[\"é\"]",
        ".data.a[\"b\"][1]",
        ".data.[\"a\"]",
        ".data.a.b.c",
        ".id.x",
        ".data.dup[0]",
    ];
    for path in paths {
        assert!(BarePath::parse(path).is_some(), "{path}");
        let sliced = run(path, data);
        let program = Program::compile(path).unwrap();
        let value = jaq_json::read::parse_single(&event(data).to_json()).unwrap();
        weigh::refuel(weigh::allowance(100));
        let ran = program.run(value, 100, &Variables::default(), 1);
        match (sliced, ran) {
            (Ok(sliced), Ok(ran)) => {
                let sliced: serde_json::Value = serde_json::from_str(&sliced).unwrap();
                let ran: serde_json::Value = serde_json::from_slice(&ran[0]).unwrap();
                assert_eq!(sliced, ran, "{path}");
            }
            (Err(_), Err(_)) => {}
            (sliced, ran) => panic!("{path}: {sliced:?} but {ran:?}"),
        }
    }
}

#[test]
fn what_could_run_away_or_look_around_is_refused_by_name() {
    for (code, name) in [
        ("env", "env"),
        ("$ENV.HOME", "$ENV"),
        ("input", "input"),
        ("[inputs]", "inputs"),
        ("halt", "halt"),
        ("\"x\" | halt_error", "halt_error"),
        ("debug", "debug"),
        ("stderr", "stderr"),
        ("def f: f; f", "f"),
        ("def f: [f]; f", "f"),
        ("def f: def g: f; g; f", "f"),
        ("[range(10)]", "range"),
        ("repeat(1)", "repeat"),
        ("[.[] | while(true; .)]", "while"),
        ("until(false; .)", "until"),
        ("recurse(.a)", "recurse"),
        ("[combinations]", "combinations"),
        ("\"x\" * 1000000000", "string × number"),
        (".data.n * \"x\"", "string × number"),
        ("{a: [if . then {b: repeat(.)} else . end]}", "repeat"),
    ] {
        let error = Expression::compile(code).err().unwrap_or_else(|| panic!("{code} compiles"));
        assert!(error.message.contains(name), "{code}: {error}");
    }
    assert!(Expression::compile("import \"a\" as a; .").is_err());
    assert!(Expression::compile("include \"a\"; .").is_err());
}

#[test]
fn n18_what_runs_away_at_run_time_is_stopped() {
    let many = format!("[{}1]", "1,".repeat(500));
    for code in [
        // Doubling: 2^501 without a cap.
        "reduce .data[] as $x (\"xx\"; . + .)",
        "reduce .data[] as $x ([1]; . + .)",
        "reduce .data[] as $x ([1]; [., .])",
        "reduce .data[] as $x ({}; {a: ., b: .})",
        "reduce .data[] as $x (1; [.])",
        "reduce .data[] as $x (10; . * .)",
        "reduce .data[] as $x (\"\\\"\"; tojson)",
        "reduce .data[] as $x (\"a\"; gsub(\"a\"; \"aa\"))",
        // Eight nested loops over 501 items.
        "[.data[] as $a | .data[] as $b | .data[] as $c | .data[] as $d | 1]",
        "[.data[] | try ([.. , ..] | tojson | error) catch 1] | [.[] | . as $x | [$x,$x]] | map(\
         tojson) | [.[] as $a | .[] as $b | .[] as $c | $a + $b + $c]",
        ".data[0] as $n | (\"x\", 5) as $s | $s * 1000000000000",
        ".data[1000000000000] = 1",
        "[.data | .[100000000] |= 1]",
    ] {
        let result = run(code, &many);
        assert!(result.is_err(), "{code} gave {} bytes", result.unwrap().len());
    }
}

#[test]
fn n2_deep_input_is_refused_before_any_parser_sees_it() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(Input::json(deep.into()).is_err());
    let brackets = format!("{}1{}", "(".repeat(500), ")".repeat(500));
    assert!(Expression::compile(&brackets).is_err());
    assert!(Expression::compile(&". | ".repeat(3_000)).is_err());
}

#[test]
fn an_expression_has_exactly_one_output_of_bounded_size() {
    let none = run("empty", "{}").unwrap_err();
    assert!(none.contains("no output"), "{none}");
    let two = run("1, 2", "{}").unwrap_err();
    assert!(two.contains("more than one output"), "{two}");
    let text = "y".repeat(600_000);
    let large = run(".data + .data", &format!("\"{text}\"")).unwrap_err();
    assert!(large.contains("exceeds 1 MiB"), "{large}");
    assert!(run("nan", "{}").is_err());
}

#[test]
fn errors_say_where_and_what_instead() {
    let syntax = Expression::compile(".data | if . then 1").unwrap_err();
    assert!(syntax.offset.is_some(), "{syntax}");
    let unknown = Expression::compile(".data | flor").unwrap_err();
    assert_eq!(unknown.offset, Some(8));
    assert!(unknown.message.contains("did you mean `floor`"), "{unknown}");
    let variable = Expression::compile("$rout").unwrap_err();
    assert!(variable.message.contains("$route"), "{variable}");
    let unclosed = Template::compile("/a/{.b").unwrap_err();
    assert_eq!(unclosed.offset, Some(3));
}

#[test]
fn variables_are_there() {
    let variables = Variables {
        route: "award".into(),
        delivery: "7".to_owned(),
        attempt: 2,
        idempotency_key: "k".to_owned(),
        event: Some(event("{\"n\": 1}")),
    };
    let code = "[$route, $delivery, $attempt, $idempotency_key, $event.data.n]";
    let input = Input::json(Bytes::from_static(b"{}")).unwrap();
    let output = Expression::compile(code).unwrap().run(&input, &variables).unwrap();
    assert_eq!(output.to_json(), r#"["award","7",2,"k",1]"#.as_bytes());
}

#[test]
fn templates_render_for_their_place() {
    let data =
        r#"{"id": "a/b c", "n": 7, "no": null, "dots": "..", "o": {}, "nl": "a\nb", "e": ""}"#;
    let ok = [
        ("/members/{.data.id}/points", Place::Path, "/members/a%2Fb%20c/points"),
        ("/a/{.data.n}", Place::Path, "/a/7"),
        ("/{.data.n}-{.data.dots}", Place::Path, "/7-.."),
        ("{{literal}} {.data.n}", Place::Query, "{literal} 7"),
        ("{.data | {n} | tojson}", Place::Header, r#"{"n":7}"#),
        ("{\"a}b\"}", Place::Header, "a}b"),
        ("{\"x\\(\"}\")y\"}", Place::Header, "x}y"),
        ("{.type}.{.data.n}", Place::RoutingKey, "order.confirmed.v1.7"),
    ];
    for (template, place, expected) in ok {
        assert_eq!(render(template, place, data), Ok(Some(expected.to_owned())), "{template}");
    }
    for (template, place) in [
        ("/a/{.data.dots}/b", Place::Path),
        ("/a/{.data.e}/b", Place::Path),
        ("/a/{.data.e}", Place::Path),
        ("/a/%2e%2e/b", Place::Path),
        ("/a/{.data.no}", Place::Path),
        ("/a?b={.data.n}", Place::Path),
        ("{.data.nl}", Place::Header),
        ("x{.data.no}", Place::Header),
        ("{.data.o}", Place::Query),
        ("{.data.no}", Place::Field),
    ] {
        assert!(render(template, place, data).is_err(), "{template} for {place:?}");
    }
    for place in [Place::Query, Place::Header, Place::OptionalField] {
        assert_eq!(render("{.data.no}", place, data), Ok(None));
    }
    assert!(render(&format!("{{\"{}\"}}", "k".repeat(256)), Place::RoutingKey, data).is_err());
}

#[test]
fn an_input_may_lie_over_another_and_share_all_of_it() {
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    let below = Arc::new(Input::object(vec![
        ("body", Member::Json(text(r#"{"n": 12.50, "items": [{"a":1.0}, 2]}"#))),
        ("raw", Member::Text(text("say \"hi\"\n"))),
    ]));
    let item = Input::object(Vec::new());
    let over = below.with(vec![("item", Member::Json(text("{ \"a\": 1.0 }")))]);
    let table = [
        (
            ".",
            concat!(
                r#"{"body":{"n": 12.50, "items": [{"a":1.0}, 2]},"#,
                r#""raw":"say \"hi\"\n","item":{ "a": 1.0 }}"#
            ),
        ),
        (".item", "{ \"a\": 1.0 }"),
        (".item.a", "1.0"),
        (".body.n", "12.50"),
        (".body.items[-1]", "2"),
        (".raw", r#""say \"hi\"\n""#),
        (".nothing.at.all", "null"),
        ("[.item.a, .body.n, .raw]", r#"[1.0,12.50,"say \"hi\"\n"]"#),
        ("keys", r#"["body","item","raw"]"#),
    ];
    for (code, expected) in table {
        let expression = Expression::compile(code).unwrap();
        for _ in 0..2 {
            let output = expression.run(&over, &Variables::default()).unwrap();
            assert_eq!(output.to_json(), expected, "{code}");
        }
    }
    let expression = Expression::compile(".").unwrap();
    assert_eq!(expression.run(&item, &Variables::default()).unwrap().to_json(), "{}");
    for code in [".[0]", ".raw.x", ".body[0]"] {
        Expression::compile(code).unwrap().run(&over, &Variables::default()).unwrap_err();
    }
}

#[test]
fn each_item_of_a_bare_path_comes_as_it_came() {
    let each = |code: &str, json: &'static str, most| {
        let input = Input::json(json.into()).unwrap();
        let outputs =
            Expression::compile(code).unwrap().run_first(&input, &Variables::default(), most);
        let text = |output: Output| String::from_utf8(output.to_json().to_vec()).unwrap();
        outputs.map(|outputs| outputs.into_iter().map(text).collect::<Vec<_>>())
    };
    let json =
        r#"{"items": [ {"b":1.0, "a":1, "a":2} , 12345678901234567890, null ], "o": {"x": 1.50}}"#;
    let all = [r#"{"b":1.0, "a":1, "a":2}"#, "12345678901234567890", "null"];
    assert_eq!(each(".items[]", json, 9).unwrap(), all);
    assert_eq!(each(" .items.[] ", json, 9).unwrap(), all);
    assert_eq!(each(".items[]", json, 2).unwrap(), all[..2]);
    assert_eq!(each(".o[]", json, 9).unwrap(), ["1.50"], "an object's values, as jq has it");
    assert_eq!(each(".[]", "[1,2]", 9).unwrap(), ["1", "2"]);
    assert_eq!(each("..[]?", "[1,[2]]", 9).unwrap(), ["1", "[2]", "2"]);
    assert_eq!(each(".items[] | 1", json, 2).unwrap(), ["1", "1"]);
    for code in [".none[]", ".items.x[]", ".items[1][]"] {
        each(code, json, 9).unwrap_err();
    }
    let two = Expression::compile(".items[]").unwrap();
    let error = two.run(&Input::json(json.into()).unwrap(), &Variables::default()).unwrap_err();
    assert!(error.message.contains("more than one output"), "{error}");
}

#[test]
fn json_within_a_text_is_no_deeper_than_any_other() {
    let deep = "[".repeat(100_000);
    // A comment, which jq's own reader would skip, could hide brackets in a quote.
    let hidden = format!("# \\\"\\n{deep}");
    for text in [deep, hidden] {
        for code in [".data | fromjson", ".data | tonumber", ".data | toboolean"] {
            let why = run(code, &format!("\"{text}\"")).unwrap_err();
            assert!(why.len() < 1000, "{code}: {}", why.len());
        }
    }
    let table = [
        (".data | fromjson", r#""{\"a\": 12.50}""#, r#"{"a":12.50}"#),
        (".data | tonumber", r#"" 12.50 ""#, "12.50"),
        (".data | tonumber", "12.50", "12.50"),
        (".data | (fromjson? // \"none\")", "\"1 2\"", "\"none\""),
        (".data | (tonumber? // 0)", "\"x\"", "0"),
        (".data | (fromjson? // 0)", "[1]", "0"),
    ];
    for (code, data, expected) in table {
        assert_eq!(run(code, data).unwrap(), expected, "{code} {data}");
    }
}

#[test]
fn a_path_or_an_update_as_long_as_a_list_fails_and_overflows_nothing() {
    let names = |count: usize| format!("[{}]", vec!["\"a\""; count].join(","));
    let table = [
        "null | path(getpath($p))",
        "null | path(reduce $p[] as $x (.; .a))",
        "{} | (reduce $p[] as $x (.; .)) |= 1",
        "{} | (foreach $p[] as $x (.; .)) |= 1",
        "{} | setpath($p; 1)",
    ];
    for code in table {
        run(&format!(".data as $p | {code}"), &names(100_000)).unwrap_err();
    }
    let table = [
        ("null | path(getpath($p)) | length", "100"),
        ("{} | (reduce $p[] as $x (.; .)) |= 1", "1"),
        ("{a: {a: 1}} | setpath($p[:2]; 2)", r#"{"a":{"a":2}}"#),
        ("[[1, 2], [3]] | (.[] | .[]) |= . + 1", "[[2,3],[4]]"),
        ("[[1, 2], [3]] | (.[][] | select(. > 1)) |= 9", "[[1,9],[9]]"),
    ];
    for (code, expected) in table {
        let code = format!(".data as $p | {code}");
        assert_eq!(run(&code, &names(100)).as_deref(), Ok(expected), "{code}");
    }
}

#[test]
fn runs_over_the_items_of_one_input_share_a_tank() {
    let text = serde_json::to_vec(&"x".repeat(1 << 20)).unwrap();
    let input = || Arc::new(Input::object(vec![("body", Member::Json(text.clone().into()))]));
    let expression = Expression::compile(r#".body + "y" | length"#).unwrap();
    let runs = |below: &Arc<Input>| {
        let run = |_: &usize| {
            let item = below.with(vec![("item", Member::Json(Bytes::from_static(b"1")))]);
            expression.run(&item, &Variables::default()).is_ok()
        };
        (0..1000).take_while(run).count()
    };
    let below = input();
    let first = runs(&below);
    assert!((10..1000).contains(&first), "{first}");
    assert_eq!(runs(&below), 0, "it stays empty");
    expression.run(&below, &Variables::default()).expect("the input itself has a tank a run");
    assert_eq!(runs(&input()), first, "another input has its own");
}
