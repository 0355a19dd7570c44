//! A jq program that is not just a path: parsed, guarded, compiled, run.

use bytes::Bytes;
use jaq_core::{
    Compiler, Ctx, Filter, Native, Vars,
    compile::Undefined,
    data::JustLut,
    load::{
        Arena, File, Loader,
        lex::Lexer,
        parse::{Def, Parser, Term},
        span,
    },
    native::{bome, v},
    unwrap_valr,
};
use jaq_json::Val;

use super::{ExpressionError, OUTPUT_MAX, Variables, guard, library, weigh};

/// The variables a program may mention, in the order they are passed.
const VARIABLES: [&str; 5] = ["$route", "$delivery", "$attempt", "$idempotency_key", "$event"];

/// Seconds since the Unix epoch: by our own clock, which can be stopped.
const NOW: &str = "now";

const MAIN: &str = "__main($route; $delivery; $attempt; $idempotency_key; $event)";

/// A compiled program.
pub(super) struct Program {
    filter: Filter<JustLut<Val>>,
    mentions_event: bool,
}

impl Program {
    /// # Errors
    /// Syntax, unknown names, and what could run away.
    pub(super) fn compile(code: &str) -> Result<Self, ExpressionError> {
        guard::check_text(code)?;
        let term = parse(code)?;
        guard::Refusal::new(code).check(&term, 0)?;
        let mentions_event = guard::mentions(&term, "$event");
        let main = Def { name: "__main", args: VARIABLES.to_vec(), body: weigh::weighed(term) };
        let (few, all) = (Arena::default(), Arena::default());
        let filter = compile(&few, library::needed_by(&main.body), main.clone())
            // What is missing may be needed in a way that has no name: the whole library decides.
            .or_else(|_| compile(&all, library::all(), main))
            .map_err(|errors| match errors {
                None => ExpressionError::new("does not load"),
                Some(errors) => undefined(code, errors.into_iter()),
            })?;
        Ok(Self { filter, mentions_event })
    }

    /// Runs on `value`, which is about `input_len` bytes of JSON, with the fuel that is there,
    /// until it has given `most` outputs, or all it has; as JSON. An output is at most
    /// [`OUTPUT_MAX`]
    /// long, all together so much or as much as the input.
    ///
    /// # Errors
    /// When it fails or is too large.
    pub(super) fn run(
        &self,
        value: Val,
        input_len: usize,
        variables: &Variables,
        most: usize,
    ) -> Result<Vec<Bytes>, ExpressionError> {
        let variables = self.variables(variables)?;
        let context = Ctx::<JustLut<Val>>::new(&self.filter.lut, Vars::new(variables));
        let mut outputs = Vec::new();
        let mut size = 0;
        for output in self.filter.id.run((context, value)).map(unwrap_valr).take(most) {
            let output = output.map_err(|error| ExpressionError::new(excerpt(&error.to_string())));
            let json = write(&output?)?;
            size += json.len();
            if size > OUTPUT_MAX.max(input_len) {
                return Err(ExpressionError::new("its outputs together exceed 1 MiB"));
            }
            outputs.push(json);
        }
        // A `try` may have swallowed the error itself.
        if weigh::is_exhausted() {
            return Err(ExpressionError::new("the program runs too long"));
        }
        Ok(outputs)
    }

    fn variables(&self, variables: &Variables) -> Result<[Val; 5], ExpressionError> {
        let text = |text: &str| match text {
            "" => Val::Null,
            text => Val::from(text.to_owned()),
        };
        let attempt = match variables.attempt {
            0 => Val::Null,
            attempt => Val::from(attempt as usize),
        };
        let event = match &variables.event {
            Some(event) if self.mentions_event => jaq_json::read::parse_single(&event.to_json())
                .map_err(|error| ExpressionError::new(format!("$event is not JSON: {error}")))?,
            _ => Val::Null,
        };
        Ok([
            text(&variables.route),
            text(&variables.delivery),
            attempt,
            text(&variables.idempotency_key),
            event,
        ])
    }
}

/// Compiles `main` with the definitions before it. `Err(None)`: it does not even load.
fn compile<'s>(
    arena: &'s Arena,
    library: Vec<Def<&'static str>>,
    main: Def<&'s str>,
) -> Result<Filter<JustLut<Val>>, Option<Vec<jaq_core::compile::Error<&'s str>>>> {
    let prelude = library.into_iter().map(shorter).chain([main]);
    let file = File { code: MAIN, path: () };
    let modules = Loader::new(prelude).load(arena, file).map_err(|_| None)?;
    let natives = jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs());
    let ours = [weigh::FROM_JSON, NOW];
    let natives = natives
        .filter(|(name, ..)| !guard::NATIVES_LEFT_OUT.contains(name) && !ours.contains(name));
    let now = Native::new(|_| bome(Ok(Val::from(crate::clock::now().0 as f64 / 1000.0))));
    Compiler::default()
        .with_funs(natives.chain(weigh::natives()).chain([(NOW, v(0), now)]))
        .with_global_vars(VARIABLES)
        .compile(modules)
        .map_err(|errors| Some(errors.into_iter().flat_map(|(_, errors)| errors).collect()))
}

/// The library's names live for ever; the program's own do not.
fn shorter<'s>(def: Def<&'static str>) -> Def<&'s str> {
    def
}

fn parse(code: &str) -> Result<Term<&str>, ExpressionError> {
    let tokens = Lexer::new(code).lex().map_err(|errors| {
        let at = errors.first().map_or(code, |(_, at)| at);
        let what = errors.first().map_or("something else", |(expected, _)| expected.as_str());
        ExpressionError::at(span(code, at).start, format!("not jq: {what} expected"))
    })?;
    Parser::new(&tokens).parse(|parser| parser.term()).map_err(|errors| match errors.first() {
        Some((expected, Some(token))) => ExpressionError::at(
            span(code, token.0).start,
            format!("not jq: {} expected, not `{}`", expected.as_str(), excerpt(token.0)),
        ),
        Some((expected, None)) => ExpressionError::at(
            code.len(),
            format!("not jq: it ends where {} is expected", expected.as_str()),
        ),
        None => ExpressionError::new("not jq"),
    })
}

fn undefined<'s>(
    code: &'s str,
    errors: impl Iterator<Item = jaq_core::compile::Error<&'s str>>,
) -> ExpressionError {
    let inside = |name: &str| {
        let (code, name) = (code.as_bytes().as_ptr_range(), name.as_ptr());
        code.start <= name && name < code.end
    };
    let mut first = None;
    for (name, kind) in errors {
        let known = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
        let natives = jaq_std::funs::<JustLut<Val>>().map(|(name, ..)| name);
        let known: Vec<&str> = known.map(|def| def.name).chain(natives).collect();
        let near = known
            .iter()
            .map(|known| (strsim::damerau_levenshtein(known, name), known))
            .filter(|(distance, _)| *distance <= 2)
            .min();
        let nearest = near.map_or(String::new(), |(_, near)| format!("; did you mean `{near}`?"));
        let message = match kind {
            Undefined::Var => {
                format!("the variable `{name}` is not known; there are {}", VARIABLES.join(" "))
            }
            Undefined::Filter(arity) => format!("`{name}/{arity}` is not known{nearest}"),
            _ => format!("`{name}` is not known"),
        };
        let error = match inside(name) {
            true => ExpressionError::at(span(code, name).start, message),
            false => ExpressionError::new(message),
        };
        first.get_or_insert(error);
    }
    first.unwrap_or_else(|| ExpressionError::new("not jq"))
}

/// As JSON. What jq has and JSON has not (NaN, bytes that are no text) is refused.
fn write(value: &Val) -> Result<Bytes, ExpressionError> {
    let mut json = Vec::new();
    let printer = jaq_json::write::Pp::default();
    let mut capped = Capped { json: &mut json };
    jaq_json::write::write(&mut capped, &printer, 0, value)
        .map_err(|_| ExpressionError::new("its output exceeds 1 MiB"))?;
    crate::event::check_json(&json)
        .map_err(|_| ExpressionError::new("its output is not JSON: NaN, infinite or raw bytes"))?;
    Ok(json.into())
}

/// A writer that ends at the cap.
struct Capped<'a> {
    json: &'a mut Vec<u8>,
}

impl std::io::Write for Capped<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.json.len() + bytes.len() > OUTPUT_MAX {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.json.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// At most 200 characters of what an error shows.
fn excerpt(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
