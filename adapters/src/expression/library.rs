//! jq's own definitions, those that a program needs.
//!
//! The whole library is some hundred definitions. Compiled into each of a thousand programs it
//! would cost a millisecond and a good part of a megabyte every time; most programs need none of
//! it. So a program gets the definitions it names, those that they name, and no others.

use std::{
    collections::{BTreeSet, HashMap},
    sync::OnceLock,
};

use jaq_core::load::{
    lex::StrPart,
    parse::{Def, Term},
};

use super::{guard, weigh};

/// The library, parsed and weighed once.
struct Library {
    definitions: Vec<Def<&'static str>>,
    /// Positions by name; a name may have several arities.
    by_name: HashMap<&'static str, Vec<usize>>,
}

/// Every definition that exists here.
pub(super) fn all() -> Vec<Def<&'static str>> {
    library().definitions.clone()
}

/// The definitions that `term` needs, in the library's order, which is theirs to depend on.
pub(super) fn needed_by(term: &Term<&str>) -> Vec<Def<&'static str>> {
    let library = library();
    let mut names = Vec::new();
    name(term, &mut names);
    let mut needed = BTreeSet::new();
    let mut next: Vec<usize> = positions(library, &names);
    while let Some(position) = next.pop() {
        if needed.insert(position) {
            let mut names = Vec::new();
            name(&library.definitions[position].body, &mut names);
            next.extend(positions(library, &names));
        }
    }
    needed.into_iter().map(|position| library.definitions[position].clone()).collect()
}

fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let definitions = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
        let definitions = definitions.filter(|def| !guard::LEFT_OUT.contains(&def.name));
        let definitions: Vec<_> = definitions.map(weigh::weighed_def).collect();
        let mut by_name: HashMap<&'static str, Vec<usize>> = HashMap::new();
        for (position, definition) in definitions.iter().enumerate() {
            by_name.entry(definition.name).or_default().push(position);
        }
        Library { definitions, by_name }
    })
}

fn positions(library: &Library, names: &[&str]) -> Vec<usize> {
    names.iter().filter_map(|name| library.by_name.get(name)).flatten().copied().collect()
}

/// Every name that `term` calls, in its own definitions too.
fn name<'s>(term: &Term<&'s str>, names: &mut Vec<&'s str>) {
    match term {
        Term::Call(called, _) => names.push(called),
        Term::Recurse => names.push("recurse"),
        Term::Str(format, parts) => {
            names.extend(format.iter().copied());
            let plain = parts.iter().all(|part| !matches!(part, StrPart::Term(_)));
            if !plain {
                // An interpolated value becomes text by this.
                names.push("tostring");
            }
        }
        Term::Def(definitions, _) => {
            for definition in definitions {
                name(&definition.body, names);
            }
        }
        _ => {}
    }
    guard::for_each_child(term, &mut |child| name(child, names));
}

#[cfg(test)]
mod tests {
    use jaq_core::load::{lex::Lexer, parse::Parser};

    use super::*;

    fn needed(code: &str) -> Vec<&'static str> {
        let tokens = Lexer::new(code).lex().unwrap();
        let term = Parser::new(&tokens).parse(|parser| parser.term()).unwrap();
        needed_by(&weigh::weighed(term)).iter().map(|definition| definition.name).collect()
    }

    #[test]
    fn what_a_program_does_not_name_is_left_out() {
        assert!(all().len() > 50);
        for code in [".a + 1", "{points: (.data.total | floor), reference: .id}", "\"a\\(.b)\""] {
            assert!(needed(code).len() <= 8, "{code}: {:?}", needed(code));
        }
    }

    #[test]
    fn what_the_named_ones_name_is_there_too_in_the_librarys_order() {
        let names = needed("with_entries(.value += 1)");
        for name in ["with_entries", "to_entries", "from_entries", "map"] {
            assert!(names.contains(&name), "{name} is not in {names:?}");
        }
        let order: Vec<_> = all().iter().map(|definition| definition.name).collect();
        let positions = names.iter().map(|name| order.iter().position(|known| known == name));
        assert!(positions.is_sorted(), "{names:?}");
    }

    /// Every definition compiles with what it needs and nothing else.
    #[test]
    fn every_name_of_the_library_is_found() {
        for definition in all() {
            if definition.name.starts_with('_') || definition.name == "recurse" {
                continue;
            }
            let args: Vec<&str> = definition.args.iter().map(|_| ".").collect();
            let args =
                if args.is_empty() { String::new() } else { format!("({})", args.join("; ")) };
            let code = format!("{}{args}", definition.name);
            let compiled = crate::expression::Expression::compile(&code);
            if let Err(error) = compiled {
                assert!(error.message.contains("is refused"), "{code}: {error}");
            }
        }
    }
}
