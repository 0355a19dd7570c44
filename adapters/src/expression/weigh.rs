//! Weights and fuel: the syntax tree rewritten so that every value that is made is weighed.
//!
//! Wherever a value is made or a loop takes a step, `| __weigh` is added, in the program and in
//! the library's definitions alike. It weighs the value (nodes and bytes, at most [`VALUE_MAX`];
//! depth, at most [`DEPTH_MAX`]) and takes the weight from the run's fuel. So no value that any
//! function is given is larger than the cap, no loop takes more steps than there is fuel, and
//! doubling something forty times ends at the first value that is too large, long before memory
//! does.
//!
//! `__weigh` is transparent to paths and updates: `path(f | __weigh)` is `path(f)`.

use std::cell::Cell;

use jaq_core::{
    DataT, Exn, Native, ValX, ValXs,
    data::JustLut,
    load::{
        lex::StrPart,
        parse::{BinaryOp, Def, Pattern, Term},
    },
    native::{Fun, bome, v},
    ops::Math,
    path::{Part, Path},
};
use jaq_json::{Num, Val};

/// The heaviest value, in bytes of text plus 16 a node.
pub(super) const VALUE_MAX: u64 = 64 << 20;

/// What all values made in one run may weigh together: so much, and more for a large input.
const FUEL: u64 = 32 << 20;
const FUEL_PER_BYTE: u64 = 64;

/// The deepest value; our own output is read again by parsers with limits.
const DEPTH_MAX: usize = crate::event::DEPTH_MAX + 8;

/// The longest path, in steps: no value is deeper, and the interpreter takes one apart step within
/// step.
const PATH_MAX: usize = 2 * DEPTH_MAX;

const WEIGH: &str = "__weigh";
const MULTIPLY: &str = "__multiply";

/// The library's own parser recurses as deep as a text has brackets, and whoever writes that text
/// is a stranger.
pub(super) const FROM_JSON: &str = "fromjson";

thread_local! {
    static LEFT: Cell<u64> = const { Cell::new(0) };
    /// How many updates are under way within one another.
    static UPDATES: Cell<usize> = const { Cell::new(0) };
}

/// What a run over an input of so many bytes may use.
pub(super) fn allowance(input_len: usize) -> u64 {
    FUEL + FUEL_PER_BYTE * input_len as u64
}

/// Fills the tank for one run on this thread.
pub(super) fn refuel(fuel: u64) {
    LEFT.set(fuel);
    UPDATES.set(0);
}

/// What is left of it.
pub(super) fn left() -> u64 {
    LEFT.get()
}

/// Whether the run used it all, whatever a `try` made of it.
pub(super) fn is_exhausted() -> bool {
    LEFT.get() == 0
}

/// Adds weighing to a definition.
pub(super) fn weighed_def(def: Def<&str>) -> Def<&str> {
    Def { name: def.name, args: def.args, body: weighed(def.body) }
}

/// Adds weighing wherever a value is made or a loop takes a step.
pub(super) fn weighed<'s>(term: Term<&'s str>) -> Term<&'s str> {
    let inner = |term: Box<Term<&'s str>>| Box::new(weighed(*term));
    match term {
        Term::Id | Term::Num(_) | Term::Break(_) | Term::Var(_) | Term::Arr(None) => term,
        Term::Recurse => weigh(term),
        Term::Str(format, parts) => {
            let made = parts.iter().any(|part| matches!(part, StrPart::Term(_)));
            let parts = parts.into_iter().map(|part| match part {
                StrPart::Term(term) => StrPart::Term(weighed(term)),
                part => part,
            });
            let text = Term::Str(format, parts.collect());
            if made { weigh(text) } else { text }
        }
        Term::Arr(Some(of)) => weigh(Term::Arr(Some(inner(of)))),
        Term::Obj(members) => {
            let members =
                members.into_iter().map(|(key, value)| (weighed(key), value.map(weighed)));
            weigh(Term::Obj(members.collect()))
        }
        Term::Neg(of) => Term::Neg(inner(of)),
        Term::Label(name, of) => Term::Label(name, inner(of)),
        Term::TryCatch(tried, caught) => Term::TryCatch(inner(tried), caught.map(inner)),
        Term::IfThenElse(branches, otherwise) => Term::IfThenElse(
            branches.into_iter().map(|(when, then)| (weighed(when), weighed(then))).collect(),
            otherwise.map(inner),
        ),
        Term::Def(defs, of) => Term::Def(defs.into_iter().map(weighed_def).collect(), inner(of)),
        Term::Call(name, args) => weigh(Term::Call(name, args.into_iter().map(weighed).collect())),
        Term::Fold(name, over, pattern, args) => {
            // The second argument is what each step makes.
            let args = args.into_iter().enumerate().map(|(n, arg)| match n {
                1 => weigh(weighed(arg)),
                _ => weighed(arg),
            });
            Term::Fold(name, inner(over), weighed_pattern(pattern), args.collect())
        }
        Term::BinOp(l, op, r) => weighed_operation(weighed(*l), op, weighed(*r)),
        Term::Path(of, Path(parts)) => {
            let steps = parts.iter().any(|(part, _)| matches!(part, Part::Range(..)));
            let parts = parts.into_iter().map(|(part, opt)| {
                let part = match part {
                    Part::Index(index) => Part::Index(weighed(index)),
                    Part::Range(from, to) => Part::Range(from.map(weighed), to.map(weighed)),
                };
                (part, opt)
            });
            let path = Term::Path(inner(of), Path(parts.collect()));
            if steps { weigh(path) } else { path }
        }
    }
}

fn weighed_operation<'s>(
    l: Term<&'s str>,
    op: BinaryOp<&'s str>,
    r: Term<&'s str>,
) -> Term<&'s str> {
    let binary = |l, op, r| Term::BinOp(Box::new(l), op, Box::new(r));
    match op {
        BinaryOp::Math(Math::Mul) => weigh(Term::Call(MULTIPLY, vec![l, r])),
        BinaryOp::Math(_) | BinaryOp::Assign | BinaryOp::UpdateAlt => weigh(binary(l, op, r)),
        BinaryOp::Update => weigh(binary(l, op, weigh(r))),
        // `l op= r` is `r as $x | l |= (. op $x)`: spelt out, so that each step is weighed.
        BinaryOp::UpdateMath(math) => {
            const VALUE: &str = "$__value";
            let made = match math {
                Math::Mul => Term::Call(MULTIPLY, vec![Term::Id, Term::Var(VALUE)]),
                math => binary(Term::Id, BinaryOp::Math(math), Term::Var(VALUE)),
            };
            let update = weigh(binary(l, BinaryOp::Update, weigh(made)));
            binary(r, BinaryOp::Pipe(Some(Pattern::Var(VALUE))), update)
        }
        BinaryOp::Pipe(Some(pattern)) => {
            binary(l, BinaryOp::Pipe(Some(weighed_pattern(pattern))), r)
        }
        op => binary(l, op, r),
    }
}

fn weighed_pattern(pattern: Pattern<&str>) -> Pattern<&str> {
    match pattern {
        Pattern::Var(name) => Pattern::Var(name),
        Pattern::Arr(parts) => Pattern::Arr(parts.into_iter().map(weighed_pattern).collect()),
        Pattern::Obj(members) => {
            let members =
                members.into_iter().map(|(key, part)| (weighed(key), weighed_pattern(part)));
            Pattern::Obj(members.collect())
        }
    }
}

fn weigh(term: Term<&str>) -> Term<&str> {
    let weigh = Term::Call(WEIGH, Vec::new());
    Term::BinOp(Box::new(term), BinaryOp::Pipe(None), Box::new(weigh))
}

type Data = JustLut<Val>;

/// The two functions that the rewriting calls, and one that stands in for the library's.
pub(super) fn natives() -> [Fun<Data>; 3] {
    let weigh = Native::<Data>::new(|cv| bome(charge(&cv.1).map(|()| cv.1)))
        .with_paths(|cv| {
            let charged = match cv.1.1.get(PATH_MAX) {
                Some(_) => Err(Exn::from(error("a path is longer than any value is deep"))),
                None => charge(&cv.1.0).map(|()| cv.1).map_err(Exn::from),
            };
            Box::new(std::iter::once(charged))
        })
        .with_update(|cv, update| match charge(&cv.1) {
            Ok(()) => deeper(|| update(cv.1).collect()),
            Err(error) => bome(Err(error)),
        });
    let multiply = Native::<Data>::new(|mut cv| {
        let r = cv.0.pop_var();
        let l = cv.0.pop_var();
        bome(multiply(l, r))
    });
    let from_json = Native::<Data>::new(|cv| bome(from_json(&cv.1)));
    [(WEIGH, v(0), weigh), (MULTIPLY, v(2), multiply), (FROM_JSON, v(0), from_json)]
}

/// One step of an update within another: `(reduce $list[] as $x (.; f)) |= g` is as many deep as
/// the list is long.
fn deeper<'a, V>(update: impl FnOnce() -> Vec<ValX<'a, V>>) -> ValXs<'a, V>
where
    V: From<String> + 'a,
{
    let depth = UPDATES.get();
    if depth >= PATH_MAX {
        let why = "an update goes through more steps than any value is deep".to_owned();
        return bome(Err(jaq_core::Error::new(V::from(why))));
    }
    UPDATES.set(depth + 1);
    let updated = update();
    UPDATES.set(depth);
    Box::new(updated.into_iter())
}

type Value<'a> = <Data as DataT>::V<'a>;

fn multiply(l: Value<'_>, r: Value<'_>) -> Result<Val, jaq_core::Error<Val>> {
    let text = |value: &Val| matches!(value, Val::TStr(_) | Val::BStr(_));
    if text(&l) || text(&r) {
        return Err(error("string × number is refused: it may fill memory"));
    }
    l * r
}

/// One JSON text, as deep as inputs may be.
fn from_json(value: &Val) -> Result<Val, jaq_core::Error<Val>> {
    let Val::TStr(text) = value else {
        return Err(error("only a string can be read as JSON"));
    };
    crate::event::check_json(text).map_err(|problem| error(&problem.to_string()))?;
    jaq_json::read::parse_single(text).map_err(|problem| error(&problem.to_string()))
}

fn charge(value: &Val) -> Result<(), jaq_core::Error<Val>> {
    let left = LEFT.get();
    let Some(weight) = weight(value, VALUE_MAX.min(left), 0) else {
        if weight_is_deep(value, 0) {
            return Err(error("a value nests too deep"));
        }
        LEFT.set(left.saturating_sub(VALUE_MAX));
        return Err(error("a value grows too large, or the program runs too long"));
    };
    LEFT.set(left.saturating_sub(weight));
    match LEFT.get() {
        0 => Err(error("the program runs too long")),
        _ => Ok(()),
    }
}

/// The weight, unless it exceeds `most` or nests too deep. Takes no longer than `most` allows.
fn weight(value: &Val, most: u64, depth: usize) -> Option<u64> {
    const NODE: u64 = 16;
    if depth > DEPTH_MAX {
        return None;
    }
    let mut sum = match value {
        Val::Null | Val::Bool(_) => NODE,
        Val::Num(Num::BigInt(number)) => NODE + number.bits() / 8,
        Val::Num(Num::Dec(text)) => NODE + text.len() as u64,
        Val::Num(_) => NODE,
        Val::TStr(text) | Val::BStr(text) => NODE + text.len() as u64,
        Val::Arr(_) | Val::Obj(_) => NODE,
    };
    match value {
        Val::Arr(items) => {
            for item in items.iter() {
                sum += weight(item, most.checked_sub(sum)?, depth + 1)?;
            }
        }
        Val::Obj(members) => {
            for (key, value) in members.iter() {
                sum += weight(key, most.checked_sub(sum)?, depth + 1)?;
                sum += weight(value, most.checked_sub(sum)?, depth + 1)?;
            }
        }
        _ => {}
    }
    (sum <= most).then_some(sum)
}

/// Whether the first chain of containers goes deeper than allowed; only for the error's words.
fn weight_is_deep(value: &Val, depth: usize) -> bool {
    depth > DEPTH_MAX
        || match value {
            Val::Arr(items) => items.first().is_some_and(|item| weight_is_deep(item, depth + 1)),
            Val::Obj(members) => {
                members.first().is_some_and(|(_, item)| weight_is_deep(item, depth + 1))
            }
            _ => false,
        }
}

fn error(message: &str) -> jaq_core::Error<Val> {
    jaq_core::Error::new(Val::from(message.to_owned()))
}
