//! What keeps a program within bounds: refusals when it compiles, weights and fuel when it runs.
//!
//! The program's syntax tree is rewritten before it is compiled, and so are the library's
//! definitions: wherever a value is made or a loop takes a step, `| __weigh` is added. It weighs
//! the value (nodes and bytes, at most [`VALUE_MAX`]; depth, at most [`DEPTH_MAX`]) and takes the
//! weight from the run's fuel. So no value that any function is given is larger than the cap, no
//! loop takes more steps than there is fuel, and doubling something forty times ends at the first
//! value that is too large, long before memory does.
//!
//! `__weigh` is transparent to paths and updates: `path(f | __weigh)` is `path(f)`.

use std::cell::Cell;

use jaq_core::{
    DataT, Exn, Native,
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

use super::ExpressionError;

/// The heaviest value, in bytes of text plus 16 a node.
pub(super) const VALUE_MAX: u64 = 64 << 20;

/// What all values made in one run may weigh together: so much, and more for a large input.
const FUEL: u64 = 32 << 20;
const FUEL_PER_BYTE: u64 = 64;

/// The deepest value; our own output is read again by parsers with limits.
const DEPTH_MAX: usize = crate::event::DEPTH_MAX + 8;

/// The longest program, in bytes, and how deep its brackets may nest.
const TEXT_MAX: usize = 16 << 10;
const NESTING_MAX: usize = 64;

/// The deepest syntax tree: each level of it is a frame of the interpreter's stack.
const TREE_MAX: usize = 512;

const WEIGH: &str = "__weigh";
const MULTIPLY: &str = "__multiply";

/// Names that do not exist here, and what to do about it.
const REFUSED: [(&str, &str); 17] = [
    ("env", "write ${NAME} outside expressions, where configuration is interpolated"),
    ("input", "there is one input, `.`"),
    ("inputs", "there is one input, `.`"),
    ("halt", "a program cannot stop the process; `error(\"why\")` fails this event"),
    ("halt_error", "a program cannot stop the process; `error(\"why\")` fails this event"),
    ("debug", "use `tidegate deliveries show` to look at an event"),
    ("stderr", "use `tidegate deliveries show` to look at an event"),
    ("range", "it may run without end; loop over what is there with `.[]`, `to_entries` or `keys`"),
    ("repeat", "it runs without end; loop over what is there with `.[]`"),
    ("while", "it may run without end; loop over what is there with `.[]`"),
    ("until", "it may run without end; loop over what is there with `.[]`"),
    ("combinations", "its output grows without bound"),
    ("input_filename", "there is no file"),
    ("input_line_number", "there is no file"),
    ("import", "there are no modules"),
    ("include", "there are no modules"),
    ("limit_memory", "memory is always limited"),
];

/// Library definitions that need what does not exist here.
pub(super) const LEFT_OUT: [&str; 5] = ["halt", "halt_error", "debug", "stderr", "combinations"];

/// Native functions that do not exist here.
pub(super) const NATIVES_LEFT_OUT: [&str; 4] = ["halt", "env", "debug_empty", "stderr_empty"];

thread_local! {
    static LEFT: Cell<u64> = const { Cell::new(0) };
}

/// Fills the tank for one run on this thread, over an input of so many bytes.
pub(super) fn refuel(input_len: usize) {
    LEFT.set(FUEL + FUEL_PER_BYTE * input_len as u64);
}

/// Whether the run used it all, whatever a `try` made of it.
pub(super) fn is_exhausted() -> bool {
    LEFT.get() == 0
}

/// Checks the program's text before anything recursive looks at it.
///
/// # Errors
/// When it is too long or nests too deep.
pub(super) fn check_text(code: &str) -> Result<(), ExpressionError> {
    if code.len() > TEXT_MAX {
        return Err(ExpressionError::at(TEXT_MAX, "longer than 16 KiB"));
    }
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > NESTING_MAX {
            return Err(ExpressionError::at(at, "brackets nest deeper than 64 levels"));
        }
    }
    Ok(())
}

/// Refuses by name what could run away or look around.
pub(super) struct Refusal<'s> {
    code: &'s str,
    /// Definitions around the term that is looked at.
    defining: Vec<&'s str>,
}

impl<'s> Refusal<'s> {
    pub(super) fn new(code: &'s str) -> Self {
        Self { code, defining: Vec::new() }
    }

    fn at(&self, part: &str, message: String) -> ExpressionError {
        ExpressionError::at(jaq_core::load::span(self.code, part).start, message)
    }

    /// # Errors
    /// What is refused, with its place.
    pub(super) fn check(
        &mut self,
        term: &Term<&'s str>,
        depth: usize,
    ) -> Result<(), ExpressionError> {
        if depth > TREE_MAX {
            return Err(ExpressionError::new("nests too deep: split it up"));
        }
        match term {
            Term::Call(name, args) => self.check_call(name, args)?,
            Term::Var(name) if *name == "$ENV" => {
                return Err(self.at(name, "`$ENV` does not exist: write ${NAME}".to_owned()));
            }
            Term::BinOp(l, BinaryOp::Math(Math::Mul), r) if is_text(l) || is_text(r) => {
                return Err(self.text_times_number());
            }
            Term::Def(defs, _) => {
                for def in defs {
                    self.defining.push(def.name);
                    let checked = self.check(&def.body, depth + 1);
                    self.defining.pop();
                    checked?;
                }
            }
            _ => {}
        }
        let mut result = Ok(());
        for_each_child(term, &mut |child| {
            if result.is_ok() {
                result = self.check(child, depth + 1);
            }
        });
        result
    }

    fn check_call(&self, name: &&'s str, args: &[Term<&'s str>]) -> Result<(), ExpressionError> {
        if self.defining.contains(name) {
            let why = format!("`{name}` calls itself: definitions must not, they may run for ever");
            return Err(self.at(name, why));
        }
        if let Some((_, instead)) = REFUSED.iter().find(|(refused, _)| refused == name) {
            return Err(self.at(name, format!("`{name}` is refused: {instead}")));
        }
        if *name == "recurse" && !args.is_empty() {
            let why = "`recurse` with an argument is refused: it may run for ever; `..` and \
                       `recurse` alone are fine";
            return Err(self.at(name, why.to_owned()));
        }
        if name.starts_with("__") {
            return Err(self.at(name, format!("`{name}` is not known")));
        }
        Ok(())
    }

    fn text_times_number(&self) -> ExpressionError {
        let at = self.code.find('*').unwrap_or(0);
        ExpressionError::at(
            at,
            "string × number is refused: it may fill memory; write the text out",
        )
    }
}

fn is_text(term: &Term<&str>) -> bool {
    matches!(term, Term::Str(..))
}

/// Calls `look` with each direct child, definitions' bodies excepted.
fn for_each_child<'t, 's>(term: &'t Term<&'s str>, look: &mut impl FnMut(&'t Term<&'s str>)) {
    match term {
        Term::Id
        | Term::Recurse
        | Term::Num(_)
        | Term::Break(_)
        | Term::Var(_)
        | Term::Arr(None) => {}
        Term::Str(_, parts) => {
            for part in parts {
                if let StrPart::Term(term) = part {
                    look(term);
                }
            }
        }
        Term::Arr(Some(inner)) | Term::Neg(inner) | Term::Label(_, inner) => look(inner),
        Term::Obj(members) => {
            for (key, value) in members {
                look(key);
                if let Some(value) = value {
                    look(value);
                }
            }
        }
        Term::BinOp(l, op, r) => {
            if let BinaryOp::Pipe(Some(pattern)) = op {
                for_each_in_pattern(pattern, look);
            }
            look(l);
            look(r);
        }
        Term::Fold(_, over, pattern, args) => {
            for_each_in_pattern(pattern, look);
            look(over);
            args.iter().for_each(look);
        }
        Term::TryCatch(tried, caught) => {
            look(tried);
            if let Some(caught) = caught {
                look(caught);
            }
        }
        Term::IfThenElse(branches, otherwise) => {
            for (condition, then) in branches {
                look(condition);
                look(then);
            }
            if let Some(otherwise) = otherwise {
                look(otherwise);
            }
        }
        Term::Def(_, body) => look(body),
        Term::Call(_, args) => args.iter().for_each(look),
        Term::Path(of, Path(parts)) => {
            look(of);
            for (part, _) in parts {
                match part {
                    Part::Index(index) => look(index),
                    Part::Range(from, to) => {
                        from.iter().for_each(&mut *look);
                        to.iter().for_each(&mut *look);
                    }
                }
            }
        }
    }
}

fn for_each_in_pattern<'t, 's>(
    pattern: &'t Pattern<&'s str>,
    look: &mut impl FnMut(&'t Term<&'s str>),
) {
    match pattern {
        Pattern::Var(_) => {}
        Pattern::Arr(parts) => {
            for part in parts {
                for_each_in_pattern(part, look);
            }
        }
        Pattern::Obj(members) => {
            for (key, part) in members {
                look(key);
                for_each_in_pattern(part, look);
            }
        }
    }
}

/// Whether `name` is mentioned as a variable.
pub(super) fn mentions(term: &Term<&str>, name: &str) -> bool {
    let mut found = matches!(term, Term::Var(known) if *known == name);
    if let Term::Def(defs, _) = term {
        found |= defs.iter().any(|def| mentions(&def.body, name));
    }
    for_each_child(term, &mut |child| found = found || mentions(child, name));
    found
}

/// Adds weighing to a definition.
pub(super) fn weighed_def<'s>(def: Def<&'s str>) -> Def<&'s str> {
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

fn weighed_pattern<'s>(pattern: Pattern<&'s str>) -> Pattern<&'s str> {
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

fn weigh<'s>(term: Term<&'s str>) -> Term<&'s str> {
    let weigh = Term::Call(WEIGH, Vec::new());
    Term::BinOp(Box::new(term), BinaryOp::Pipe(None), Box::new(weigh))
}

type Data = JustLut<Val>;

/// The two functions that the rewriting calls.
pub(super) fn natives() -> [Fun<Data>; 2] {
    let weigh = Native::<Data>::new(|cv| bome(charge(&cv.1).map(|()| cv.1)))
        .with_paths(|cv| {
            let charged = charge(&cv.1.0).map(|()| cv.1).map_err(Exn::from);
            Box::new(std::iter::once(charged))
        })
        .with_update(|cv, update| match charge(&cv.1) {
            Ok(()) => update(cv.1),
            Err(error) => bome(Err(error)),
        });
    let multiply = Native::<Data>::new(|mut cv| {
        let r = cv.0.pop_var();
        let l = cv.0.pop_var();
        bome(multiply(l, r))
    });
    [(WEIGH, v(0), weigh), (MULTIPLY, v(2), multiply)]
}

type Value<'a> = <Data as DataT>::V<'a>;

fn multiply(l: Value<'_>, r: Value<'_>) -> Result<Val, jaq_core::Error<Val>> {
    let text = |value: &Val| matches!(value, Val::TStr(_) | Val::BStr(_));
    if text(&l) || text(&r) {
        return Err(error("string × number is refused: it may fill memory"));
    }
    l * r
}

fn charge(value: &Val) -> Result<(), jaq_core::Error<Val>> {
    let left = LEFT.get();
    let Some(weight) = weight(value, VALUE_MAX.min(left), 0) else {
        if weight_is_deep(value, 0) {
            return Err(error("a value nests too deep"));
        }
        LEFT.set(if left < VALUE_MAX { 0 } else { left - VALUE_MAX });
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
