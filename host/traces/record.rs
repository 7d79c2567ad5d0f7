//! Spans that have ended.

use super::ids::{SpanId, TraceId};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::sync::Arc;

/// A value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(Arc<str>),
    Number(i64),
}

impl From<&Arc<str>> for Value {
    fn from(text: &Arc<str>) -> Self {
        Value::Text(Arc::clone(text))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.into())
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Value::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

pub type Attributes = SmallVec<[(&'static str, Value); 8]>;

/// Which side of a call a span is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    Server,
    Client,
    Internal,
}

/// A span that has ended.
#[derive(Clone, Debug)]
pub struct SpanRecord {
    pub trace: TraceId,
    pub span: SpanId,
    /// `None` for a trace that begins here.
    pub parent: Option<SpanId>,
    pub state: Option<Arc<str>>,
    pub name: Cow<'static, str>,
    pub kind: SpanKind,
    /// Nanoseconds since 1970.
    pub start: u64,
    pub end: u64,
    pub attributes: Attributes,
    /// Why what it stands for has failed.
    pub error: Option<Arc<str>>,
}
