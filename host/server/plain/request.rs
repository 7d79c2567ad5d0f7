//! Bodies of the plain interface. They are parsed in two steps: first the names and the positions
//! of the inputs, then, when the model is known, the inputs themselves. Both steps stay within the
//! request's memory budget, and run on the threads of `offload` if the body is large.

use crate::error::{Error, Result};
use crate::offload;
use crate::policy::{Route, route_input};
use crate::predict::walk::{Listed, shown};
use crate::predict::{self, JsonText, MemoryBudget, Parameters, Payload, Priority, Scalar};
use crate::router::CallOptions;
use crate::server::background;
use crate::server::http;
use crate::server::http::body_text::BodyText;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// The most items of one batch.
pub(super) const BATCH_ITEMS_MAX: usize = 1000;

pub(super) const UNREADABLE: &str = "the body is not what this path takes";

/// The fields of a body besides its inputs.
pub(in crate::server) struct Head {
    pub model: BodyText,
    pub version: Option<BodyText>,
    pub parameters: Option<JsonText>,
    pub timeout: Option<Duration>,
    pub priority: Priority,
}

/// The fields of a body about its call.
pub(super) struct CallFields<'a> {
    pub parameters: Option<&'a RawValue>,
    pub timeout_ms: Option<&'a RawValue>,
    pub priority: Option<&'a RawValue>,
}

impl Head {
    pub(super) fn of(
        body: &Bytes,
        model: Cow<'_, str>,
        version: Option<Version<'_>>,
        fields: &CallFields<'_>,
    ) -> Result<Self> {
        let CallFields { parameters, timeout_ms, priority } = *fields;
        Ok(Head {
            model: BodyText::of(body, model),
            version: version.map(|version| BodyText::of(body, version.into_text())),
            parameters: parameters.map(|parameters| json_part(body, parameters)),
            timeout: timeout(timeout_ms)?,
            priority: priority.map(read_priority).transpose()?.unwrap_or_default(),
        })
    }

    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    pub fn parameters(&self, budget: &mut MemoryBudget) -> Result<Parameters> {
        let text = self.parameters.as_ref().map(JsonText::as_str);
        let raw = text.map(|text| serde_json::from_str(text).expect("invariant: it was read before"));
        parameters(raw, budget)
    }
}

/// Returns a JSON value of a body, without a copy.
pub(super) fn json_part(body: &Bytes, value: &RawValue) -> JsonText {
    JsonText::from_checked(body.slice_ref(value.get().as_bytes()))
}

/// The body of `POST /predict` and `/predict/stream`.
pub(in crate::server) struct Request {
    pub head: Head,
    data: JsonText,
    body_bytes: usize,
}

impl Request {
    pub async fn read(body: Bytes) -> Result<Self> {
        offload::run(body.len(), move || Self::parse(&body)).await
    }

    fn parse(body: &Bytes) -> Result<Self> {
        let Single { model, version, data, parameters, timeout_ms, priority } =
            http::parse_object(body, UNREADABLE)?;
        let head = Head::of(body, model, version, &CallFields { parameters, timeout_ms, priority })?;
        Ok(Request { head, data: json_part(body, data), body_bytes: body.len() })
    }

    /// Decodes the input and the options of the call.
    pub async fn input(self, route: &Arc<Route>, mut budget: MemoryBudget) -> Result<(CallOptions, Payload)> {
        let route = Arc::clone(route);
        offload::run(self.body_bytes, move || {
            let input = route_input::json_input(&route, self.data, &mut budget)?;
            let parameters = self.head.parameters(&mut budget)?;
            let (timeout, priority) = (self.head.timeout, self.head.priority);
            Ok((CallOptions { parameters, timeout, priority, ..CallOptions::default() }, input))
        })
        .await
    }
}

/// The body of `POST /predict/batch`.
pub(super) struct BatchRequest {
    pub head: Head,
    body: Bytes,
    /// The positions of the items in the body.
    items: Vec<Range<usize>>,
}

impl BatchRequest {
    pub async fn read(body: Bytes) -> Result<Self> {
        offload::run(body.len(), move || Self::parse(body)).await
    }

    fn parse(body: Bytes) -> Result<Self> {
        let Batch { model, version, items, parameters, timeout_ms, priority } =
            http::parse_object(&body, UNREADABLE)?;
        let head = Head::of(&body, model, version, &CallFields { parameters, timeout_ms, priority })?;
        let items = item_ranges(&body, &items)?;
        Ok(BatchRequest { head, body, items })
    }

    /// Decodes the items. An item that is wrong does not affect the others.
    pub async fn inputs(
        self,
        route: &Arc<Route>,
        mut budget: MemoryBudget,
    ) -> Result<Vec<Result<(CallOptions, Payload)>>> {
        let (route, timeout, priority) = (Arc::clone(route), self.head.timeout, self.head.priority);
        offload::run(self.body.len(), move || {
            let shared = self.head.parameters(&mut budget)?;
            let items = self.items.iter().map(|range| {
                let (input, parameters) = item(&self.body, range, &shared, &mut budget)?;
                let input = route_input::json_input(&route, input, &mut budget)?;
                Ok((CallOptions { parameters, timeout, priority, ..CallOptions::default() }, input))
            });
            Ok(items.collect())
        })
        .await
    }
}

/// Returns the positions of the items of a batch in its body.
///
/// # Errors
/// `too_large` over `BATCH_ITEMS_MAX` items.
pub(super) fn item_ranges(body: &Bytes, items: &Listed<'_, BATCH_ITEMS_MAX>) -> Result<Vec<Range<usize>>> {
    if items.count > BATCH_ITEMS_MAX {
        let message = format!("{} items; at most {BATCH_ITEMS_MAX} are allowed", items.count);
        return Err(Error::too_large(message).field("items"));
    }
    let range = |item: &&RawValue| {
        let start = item.get().as_ptr().addr() - body.as_ptr().addr();
        start..start + item.get().len()
    };
    Ok(items.items.iter().map(range).collect())
}

/// Reads one item of a batch: its input, and its own parameters or else the shared ones.
pub(super) fn item(
    body: &Bytes,
    range: &Range<usize>,
    shared: &Parameters,
    budget: &mut MemoryBudget,
) -> Result<(JsonText, Parameters)> {
    let item: Item<'_> = http::parse_object(&body[range.clone()], "not an item")?;
    let own = parameters(item.parameters, budget)?;
    if !own.is_empty() {
        return Ok((json_part(body, item.data), own));
    }
    // Both the item and its call, which is admitted separately, hold a copy.
    budget.charge(2 * predict::parameters_bytes(shared), "parameters, which each item has,")?;
    Ok((json_part(body, item.data), shared.clone()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Single<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    #[serde(borrow)]
    version: Option<Version<'a>>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
    #[serde(borrow)]
    timeout_ms: Option<&'a RawValue>,
    #[serde(borrow)]
    priority: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    #[serde(borrow)]
    version: Option<Version<'a>>,
    #[serde(borrow)]
    items: Listed<'a, BATCH_ITEMS_MAX>,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
    #[serde(borrow)]
    timeout_ms: Option<&'a RawValue>,
    #[serde(borrow)]
    priority: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
}

/// A version: `"2"` or `2`.
pub(super) struct Version<'a>(Cow<'a, str>);

impl<'a> Version<'a> {
    fn into_text(self) -> Cow<'a, str> {
        self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Version<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Scalar::deserialize(deserializer)? {
            Scalar::Text(text) => Ok(Version(text)),
            Scalar::Integer(number @ 0..) => Ok(Version(number.to_string().into())),
            Scalar::Unsigned(number) => Ok(Version(number.to_string().into())),
            _ => Err(D::Error::custom("version must be a string or a whole number")),
        }
    }
}

/// Reads the parameters of a body of the plain interface.
fn parameters(fields: Option<&RawValue>, budget: &mut MemoryBudget) -> Result<Parameters> {
    predict::parameters(fields, budget).map_err(|stopped| {
        stopped.into_error(|error| {
            let words = http::in_plain_words(error);
            Error::invalid(format!("{UNREADABLE}: parameters: {words} of the parameters")).field("parameters")
        })
    })
}

fn timeout(value: Option<&RawValue>) -> Result<Option<Duration>> {
    match value {
        None => Ok(None),
        Some(value) => milliseconds("timeout_ms", value).map(Some),
    }
}

/// Reads a priority.
fn read_priority(value: &RawValue) -> Result<Priority> {
    match Scalar::of(value).ok().and_then(|scalar| scalar.as_u64()) {
        Some(number) => background::priority(number),
        // The message quotes the text.
        None => match serde_json::from_str::<String>(value.get()) {
            Ok(text) => background::query_priority(&text),
            Err(_) => background::query_priority(shown(value.get())),
        },
    }
}

/// Reads a whole number of milliseconds, at least 1.
fn milliseconds(field: &str, value: &RawValue) -> Result<Duration> {
    whole_number(field, value, " of milliseconds").map(Duration::from_millis)
}

/// Reads a whole number, at least 1.
pub(super) fn whole_number(field: &str, value: &RawValue, unit: &str) -> Result<u64> {
    let scalar = Scalar::of(value)
        .map_err(|error| Error::invalid(format!("{UNREADABLE}: {field}: {error}")).field(field))?;
    match scalar.as_u64() {
        Some(number) if number > 0 => Ok(number),
        _ => {
            let nested = matches!(scalar, Scalar::List | Scalar::Object);
            let got = if nested { shown(value.get()).to_owned() } else { scalar.to_string() };
            let message = format!("{field} is {got}; it must be a whole number{unit}, at least 1");
            Err(Error::invalid(message).field(field))
        }
    }
}
