//! `[pipelines]` as written.

use super::named::Named;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use toml::Spanned;

/// `[pipelines.<name>]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// Inputs such as `FP32[-1,18]`; with `?` an input may be absent. The default is what the steps
    /// read.
    pub inputs: Option<BTreeMap<String, Spanned<String>>>,
    #[serde(default)]
    pub outputs: BTreeMap<String, Spanned<Source>>,
    /// `each`: every row runs through the graph alone.
    pub rows: Option<Spanned<String>>,
    #[serde(default)]
    pub streaming: bool,
    /// `steps`: a job keeps the outputs of steps that have ended.
    pub keep: Option<Spanned<String>>,
    /// Step runs of one request.
    pub max_visits: Option<Spanned<u32>>,
    /// Memory of the tensors that one request may hold.
    pub max_mb: Option<Spanned<usize>>,
    /// Concurrent step runs of one request; 0 means no limit.
    pub parallel: Option<Spanned<usize>>,
    /// Items of a stream that are processed at once.
    pub window: Option<Spanned<usize>>,
    #[serde(default)]
    pub steps: Named<Step>,
}

/// `[pipelines.<name>.steps.<step>]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// `name` or `name:version`.
    pub model: Spanned<String>,
    /// From the model's inputs to their sources, `input.NAME` or `STEP.OUTPUT`.
    #[serde(default, rename = "in")]
    pub inputs: BTreeMap<String, Spanned<Source>>,
    /// Steps that must end before this one.
    #[serde(default)]
    pub after: Vec<Spanned<String>>,
    /// A condition.
    pub when: Option<Spanned<String>>,
    pub choose: Option<Choose>,
    pub each: Option<Each>,
    #[serde(rename = "loop")]
    pub looped: Option<Loop>,
    pub timeout_ms: Option<Spanned<u64>>,
    /// `fail` or `skip`.
    pub on_error: Option<Spanned<String>>,
    pub retry: Option<Retry>,
    pub max_in_flight: Option<Spanned<usize>>,
    pub max_per_s: Option<Spanned<f64>>,
    #[serde(default)]
    pub params: BTreeMap<String, Spanned<toml::Value>>,
    /// Outputs that the model may omit.
    #[serde(default)]
    pub may_omit: Vec<Spanned<String>>,
    #[serde(default)]
    pub always: bool,
    #[serde(default)]
    pub detach: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "{ by = \"OUTPUT\", among = [\"STEP\", …] }")]
pub struct Choose {
    /// The output that names steps of `among`, or their indices in it.
    pub by: Spanned<String>,
    pub among: Vec<Spanned<String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "{ split = [\"INPUT\", …], rows = NUMBER }")]
pub struct Each {
    pub split: Vec<Spanned<String>>,
    pub rows: Option<Spanned<usize>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "{ while = \"CONDITION\", max = NUMBER, … }")]
pub struct Loop {
    #[serde(rename = "while")]
    pub again_while: Spanned<String>,
    pub max: Spanned<u32>,
    /// `fail` or `go-on`.
    pub at_max: Option<Spanned<String>>,
    /// From inputs to the outputs that they take in the next round.
    #[serde(default)]
    pub carry: BTreeMap<String, Spanned<String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "{ attempts = NUMBER, … }")]
pub struct Retry {
    pub attempts: Spanned<u32>,
    pub interval_ms: Option<Spanned<u64>>,
    pub factor: Option<Spanned<f64>>,
    pub max_interval_ms: Option<Spanned<u64>>,
    /// Kinds of errors.
    pub on: Option<Vec<Spanned<String>>>,
}

/// A text, a list, or a table.
#[derive(Clone, Debug)]
pub enum Source {
    One(Member),
    List(Vec<Member>),
    Gathered { from: Vec<Member>, gather: String },
}

#[derive(Clone, Debug)]
pub enum Member {
    /// `input.NAME` or `STEP.OUTPUT`, with `?` if it may be absent.
    Text(String),
    Const(toml::Value),
}

const EXPECTED: &str =
    "\"STEP.OUTPUT\", \"input.NAME\", a list of these, { const = … } or { from = …, gather = … }";

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Source;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_str<E>(self, text: &str) -> Result<Source, E> {
                Ok(Source::One(Member::Text(text.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Source, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = list.next_element::<Source>()? {
                    match member {
                        Source::One(member) => members.push(member),
                        _ => {
                            return Err(A::Error::custom(
                                "a list of sources has texts and constants only; { from = [\"…\", \"…\"], gather = … } gathers a list",
                            ));
                        }
                    }
                }
                Ok(Source::List(members))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<Source, A::Error> {
                let (mut constant, mut from, mut gather) = (None, None, None);
                while let Some(key) = table.next_key::<String>()? {
                    match key.as_str() {
                        "const" => constant = Some(table.next_value::<toml::Value>()?),
                        "from" => from = Some(table.next_value::<Source>()?),
                        "gather" => gather = Some(table.next_value::<String>()?),
                        other => return Err(A::Error::unknown_field(other, &["const", "from", "gather"])),
                    }
                }
                match (constant, from, gather) {
                    (Some(value), None, None) => Ok(Source::One(Member::Const(value))),
                    (None, Some(Source::One(member)), Some(gather)) => {
                        Ok(Source::Gathered { from: vec![member], gather })
                    }
                    (None, Some(Source::List(from)), Some(gather)) => Ok(Source::Gathered { from, gather }),
                    (None, Some(_), None) => Err(A::Error::missing_field("gather")),
                    (None, None, Some(_)) => Err(A::Error::missing_field("from")),
                    _ => Err(A::Error::custom(format!("a source is {EXPECTED}"))),
                }
            }
        }

        deserializer.deserialize_any(Reader)
    }
}
