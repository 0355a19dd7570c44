//! The trace that an event belongs to: W3C Trace Context, <https://www.w3.org/TR/trace-context/>.
//!
//! It travels as two texts, `traceparent` and `tracestate`: in HTTP headers, in the headers of AMQP
//! messages, and as CloudEvents extension attributes. Between them it is what stands here: small,
//! and of the right shape.

use std::fmt;

use uuid::Uuid;

/// The longest `traceparent` that is looked at; later versions may say more behind the flags.
const PARENT_MAX: usize = 256;

/// The longest `tracestate` that is carried on, in bytes (Trace Context, §3.3.1.5: at least so
/// much should be).
const STATE_MAX: usize = 512;

/// Members of a `tracestate` at most (§3.3.1).
const MEMBERS_MAX: usize = 32;

/// The flag of a trace that is recorded (§3.2.2.5.1).
const SAMPLED: u8 = 1;

/// Flags that are handed on: sampled, and random trace id (level 2, §3.2.2.5).
const FLAGS: u8 = 0b11;

/// A place in a trace: who is asking, as the one who is asked sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    trace: u128,
    span: u64,
    flags: u8,
    state: Option<Box<str>>,
}

impl TraceContext {
    /// What a sender said: its `traceparent`, and the `tracestate` beside it. `None` where the
    /// first has not the right shape; a `tracestate` that has not is left out.
    #[must_use]
    pub fn carried(parent: &str, state: Option<&str>) -> Option<Self> {
        let context = Self::parse(parent)?;
        let state = state.map(str::trim).filter(|state| is_tracestate(state)).map(Into::into);
        Some(Self { state, ..context })
    }

    /// Reads a `traceparent` (§3.2): `00-<32 hex>-<16 hex>-<2 hex>`, lower case, ids not all zero.
    /// A later version may say more behind the flags.
    #[must_use]
    pub fn parse(parent: &str) -> Option<Self> {
        const LENGTH: usize = 55;
        let mut fields = parent.split('-');
        let version = hexadecimal(fields.next()?, 2)?;
        let trace = hexadecimal(fields.next()?, 32).filter(|id| *id != 0)?;
        let span = hexadecimal(fields.next()?, 16).filter(|id| *id != 0)?;
        let flags = hexadecimal(fields.next()?, 2)?;
        let known = match version {
            0 => parent.len() == LENGTH,
            0xff => false,
            _ => parent.len() <= PARENT_MAX,
        };
        let flags = u8::try_from(flags).ok()? & FLAGS;
        known.then_some(Self { trace, span: u64::try_from(span).ok()?, flags, state: None })
    }

    /// The first place in a trace of its own.
    #[must_use]
    pub fn root(sampled: bool) -> Self {
        Self::root_of(Uuid::new_v4(), sampled)
    }

    /// The first place in the trace that `seed` stands for: the same trace for the same seed.
    #[must_use]
    pub fn root_of(seed: Uuid, sampled: bool) -> Self {
        // Samplers look at the last 7 bytes; of a UUID the first half is the more even one.
        let trace = seed.as_u128().rotate_left(64);
        Self { trace, span: fresh_span(), flags: u8::from(sampled), state: None }
    }

    /// A new place beneath this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span: fresh_span(), ..self.clone() }
    }

    /// The trace.
    #[must_use]
    pub fn trace_id(&self) -> u128 {
        self.trace
    }

    /// The place in it.
    #[must_use]
    pub fn span_id(&self) -> u64 {
        self.span
    }

    /// Whether the trace is recorded.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same, recorded or not.
    #[must_use]
    pub fn sampled(mut self, sampled: bool) -> Self {
        self.flags = (self.flags & !SAMPLED) | u8::from(sampled);
        self
    }

    /// `tracestate`, carried along.
    #[must_use]
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

/// As `traceparent`, version 00.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

/// Random, and never all zero. It guards nothing, so it need not be asked of the system.
fn fresh_span() -> u64 {
    fastrand::u64(1..)
}

/// Lower-case hexadecimal digits, exactly so many.
fn hexadecimal(text: &str, digits: usize) -> Option<u128> {
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let sound = text.len() == digits && text.bytes().all(lower);
    sound.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

/// Whether it is a list of `key=value` (§3.3.1). What is in it is the vendors' business.
fn is_tracestate(text: &str) -> bool {
    let printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let mut members = text.split(',').map(str::trim).filter(|member| !member.is_empty());
    !text.is_empty()
        && text.len() <= STATE_MAX
        && printable
        && text.split(',').count() <= MEMBERS_MAX
        && members.all(|member| member.split_once('=').is_some_and(|(key, _)| !key.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    /// Trace Context, §3.2.2.
    #[test]
    fn a_traceparent_has_the_shape_of_the_recommendation() {
        let good = [
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-will-be-like",
        ];
        for text in good {
            let context = TraceContext::parse(text).unwrap();
            assert_eq!(context.to_string()[2..], text[2..55]);
        }
        let zeros = "0".repeat(32);
        let wrong = [
            String::new(),
            "garbage".into(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{TRACE}-{SPAN}-0"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-01\r\nx: y"),
            format!("00-+af7651916cd43dd8448eb211c80319c-{SPAN}-01"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("cc-{TRACE}-{SPAN}-01what"),
            format!("cc-{TRACE}-{SPAN}-01-{}", "x".repeat(PARENT_MAX)),
        ];
        for text in wrong {
            assert_eq!(TraceContext::parse(&text), None, "{text}");
        }
    }

    #[test]
    fn a_child_is_another_place_in_the_same_trace() {
        let state = Some("vendor=1,other=2");
        let parent = TraceContext::carried(&format!("00-{TRACE}-{SPAN}-01"), state).unwrap();
        let child = parent.child();
        assert_eq!((child.trace_id(), child.is_sampled()), (parent.trace_id(), true));
        assert_ne!(child.span_id(), parent.span_id());
        assert_eq!(child.state(), state);
        assert!(!child.sampled(false).to_string().ends_with("-01"));
    }

    #[test]
    fn the_same_seed_gives_the_same_trace() {
        let seed = Uuid::new_v5(&Uuid::NAMESPACE_URL, b"one");
        let [one, two] = [(); 2].map(|()| TraceContext::root_of(seed, false));
        assert_eq!(one.trace_id(), two.trace_id());
        assert_ne!(one.span_id(), two.span_id());
        assert_eq!(TraceContext::parse(&one.to_string()), Some(one));
    }

    #[test]
    fn a_tracestate_that_is_none_is_left_out_and_the_trace_stays() {
        let parent = format!("00-{TRACE}-{SPAN}-00");
        let kept = |state: &str| TraceContext::carried(&parent, Some(state)).unwrap().state;
        assert_eq!(kept(" a=1, b=2 ").as_deref(), Some("a=1, b=2"));
        let long = format!("a={}", "x".repeat(STATE_MAX));
        let many = vec!["a=1"; MEMBERS_MAX + 1].join(",");
        for wrong in ["", "a", "=1", "a=1\r\nx: y", "a=é", &long, &many] {
            assert_eq!(kept(wrong), None, "{wrong}");
        }
    }
}
