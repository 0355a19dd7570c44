//! Inputs told member by member, one laid over another: what a webhook's expressions work on.
//!
//! A thousand items of one large request share everything but the item itself. So an input may lie
//! over another one: it has the other's members and its own, and nothing of the other is copied,
//! parsed or searched twice. What a bare path found in the shared part is remembered there, under
//! the path; there are no more of those than the configuration has paths.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use jaq_json::{Map, Val};
use parking_lot::Mutex;

use super::{
    ExpressionError, From, Input,
    path::{BarePath, Step, walk},
    weigh,
};

/// How many runs' worth of fuel all that lie over one input may use together. A program that goes
/// through the whole input for each of a thousand items would keep a core for minutes.
const RUNS: u64 = 4;

/// The value of a member.
#[derive(Debug, Clone)]
pub enum Member {
    /// JSON, known to be well-formed and no deeper than inputs may be.
    Json(Bytes),
    /// A string, by its UTF-8. Written as JSON only when somebody asks for it.
    Text(Bytes),
}

/// An object by its members.
pub(super) struct Object {
    members: Vec<(&'static str, Member)>,
    below: Option<Arc<Input>>,
    found: Mutex<HashMap<BarePath, Result<Bytes, ExpressionError>>>,
    /// Used by those that lie over it.
    burnt: AtomicU64,
}

impl Member {
    fn json(&self) -> Bytes {
        match self {
            Self::Json(json) => json.clone(),
            Self::Text(text) => {
                let text = String::from_utf8_lossy(text);
                serde_json::to_vec(&*text).expect("a string always serialises to memory").into()
            }
        }
    }

    fn value(&self) -> Result<Val, ExpressionError> {
        match self {
            Self::Json(json) => jaq_json::read::parse_single(json)
                .map_err(|error| ExpressionError::new(format!("not JSON: {error}"))),
            Self::Text(text) => Ok(Val::utf8_str(text.clone())),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Json(bytes) | Self::Text(bytes) => bytes.len(),
        }
    }
}

impl Object {
    pub(super) fn new(members: Vec<(&'static str, Member)>, below: Option<Arc<Input>>) -> Self {
        Self { members, below, found: Mutex::default(), burnt: AtomicU64::new(0) }
    }

    /// What `path` leads to; `null` where there is nothing.
    ///
    /// # Errors
    /// Where a step does not fit what it is to step into.
    pub(super) fn slice(&self, path: &BarePath) -> Result<Bytes, ExpressionError> {
        let steps = path.steps();
        let Some(Step::Key(key)) = steps.first() else {
            return walk(&self.text(), steps);
        };
        if let Some((_, member)) = self.members.iter().find(|(name, _)| name == key) {
            return walk(&member.json(), &steps[1..]);
        }
        match self.below() {
            Some(below) => below.slice_again(path),
            None => Ok(Bytes::from_static(b"null")),
        }
    }

    /// As [`Object::slice`], remembering what it found.
    fn slice_again(&self, path: &BarePath) -> Result<Bytes, ExpressionError> {
        if let Some(found) = self.found.lock().get(path) {
            return found.clone();
        }
        let found = self.slice(path);
        self.found.lock().insert(path.clone(), found.clone());
        found
    }

    pub(super) fn text(&self) -> Bytes {
        let mut json = Vec::with_capacity(self.len() + 64);
        json.push(b'{');
        self.write_members(&mut json);
        json.push(b'}');
        json.into()
    }

    fn write_members(&self, json: &mut Vec<u8>) {
        if let Some(below) = self.below() {
            below.write_members(json);
        }
        for (name, member) in &self.members {
            if json.len() > 1 {
                json.push(b',');
            }
            json.push(b'"');
            json.extend_from_slice(name.as_bytes());
            json.extend_from_slice(b"\":");
            json.extend_from_slice(&member.json());
        }
    }

    pub(super) fn len(&self) -> usize {
        let own: usize = self.members.iter().map(|(name, member)| name.len() + member.len()).sum();
        own + self.below().map_or(0, Self::len)
    }

    pub(super) fn value(&self) -> Result<Val, ExpressionError> {
        let below = self.below.as_ref().map(|below| below.value().cloned()).transpose()?;
        let mut all = match below {
            // A handful of members, each shared.
            Some(Val::Obj(members)) => (*members).clone(),
            _ => Map::default(),
        };
        for (name, member) in &self.members {
            all.insert(Val::utf8_str(*name), member.value()?);
        }
        Ok(Val::obj(all))
    }

    /// What is left for runs on this one.
    pub(super) fn fuel(&self) -> u64 {
        let Some(below) = self.below() else { return u64::MAX };
        let all = weigh::allowance(below.len()).saturating_mul(RUNS);
        all.saturating_sub(below.burnt.load(Ordering::Relaxed))
    }

    pub(super) fn burn(&self, fuel: u64) {
        if let Some(below) = self.below() {
            below.burnt.fetch_add(fuel, Ordering::Relaxed);
        }
    }

    fn below(&self) -> Option<&Self> {
        match &self.below.as_ref()?.from {
            From::Object(object) => Some(object),
            From::Event(_) | From::Json(_) => None,
        }
    }
}
