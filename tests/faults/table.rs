//! `README.md`'s table of cases against the tests: what it names must exist, and be named by its
//! case. A row may be empty while a case is open; there is no other way to be silent about one.

use std::{collections::BTreeMap, path::Path};

/// How many cases each chapter has.
const CASES: [(&str, usize); 8] =
    [("B", 24), ("U", 22), ("D", 15), ("P", 14), ("N", 20), ("C", 12), ("X", 14), ("S", 14)];

/// A row of the table: what stands between its bars.
fn rows() -> BTreeMap<String, Vec<String>> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let page = std::fs::read_to_string(page).expect("the page of the tests");
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let rows = page.lines().filter(|line| line.starts_with('|')).map(cells);
    let rows = rows.filter(|cells| cells.len() == 7 && is_case(&cells[1]));
    rows.map(|cells| (cells[1].clone(), cells[2..6].to_vec())).collect()
}

fn is_case(id: &str) -> bool {
    CASES.iter().any(|(chapter, count)| {
        let number = id.strip_prefix(chapter).and_then(|number| number.parse().ok());
        number.is_some_and(|number| (1..=*count).contains(&number))
    })
}

#[test]
fn the_table_has_every_case_once() {
    let all = CASES.iter().map(|(_, count)| count).sum::<usize>();
    assert_eq!(rows().len(), all);
}

#[test]
fn what_the_table_names_is_there_and_named_by_its_case() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    let mut wrong = Vec::new();
    for (id, cells) in rows() {
        let [_, tests, asserts, result] = &cells[..] else { unreachable!("four cells") };
        let named = tests.split([',', ' ', '`']).filter_map(|word| word.split_once("::"));
        let named: Vec<(&str, &str)> = named.collect();
        let held = result.starts_with("held");
        if !(held || result.starts_with("left out: ") || result.is_empty()) {
            wrong.push(format!("{id}: {result} is no result"));
        }
        if held && (named.is_empty() || asserts.is_empty()) {
            wrong.push(format!("{id}: held by no test"));
        }
        for (file, test) in named {
            let source = std::fs::read_to_string(root.join(file)).unwrap_or_default();
            // A name may end with a `…` where it is told apart already.
            let start = match test.strip_suffix('…') {
                Some(start) => format!("fn {start}"),
                None => format!("fn {test}("),
            };
            if !source.contains(&start) {
                wrong.push(format!("{id}: no {test} in {file}"));
            }
            if !test.split('_').any(|part| part == id.to_lowercase()) {
                wrong.push(format!("{id}: {test} is not named by it"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
