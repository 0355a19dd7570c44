//! What is refused when a program compiles, by name and place; [`super::weigh`] bounds the rest
//! when it runs.

use jaq_core::{
    load::{
        lex::StrPart,
        parse::{BinaryOp, Pattern, Term},
    },
    ops::Math,
    path::{Part, Path},
};

use super::ExpressionError;

/// The longest program, in bytes, and how deep its brackets may nest.
const TEXT_MAX: usize = 16 << 10;
const NESTING_MAX: usize = 64;

/// The deepest syntax tree: each level of it is a frame of the interpreter's stack.
const TREE_MAX: usize = 512;

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
pub(super) fn for_each_child<'t, 's>(
    term: &'t Term<&'s str>,
    look: &mut impl FnMut(&'t Term<&'s str>),
) {
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
