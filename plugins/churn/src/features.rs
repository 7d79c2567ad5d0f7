//! Turns a record into the features that the model was trained on: nine scaled numbers, then one
//! feature for each value of each category, which is 1 for the record's value.

use hostler_plugin::Error;
use hostler_plugin::json::{self, Value};

use crate::record::{CATEGORIES, NUMERICS, Record};

pub const FEATURES: usize = 18;

pub type Row = [f32; FEATURES];

/// Mean and scale of each numeric field in the training data: the asset `scaling`.
#[derive(Debug, PartialEq)]
pub struct Scaling {
    mean: [f64; NUMERICS.len()],
    scale: [f64; NUMERICS.len()],
}

impl Scaling {
    /// Parses `{"mean": [nine numbers], "scale": [nine numbers]}`; other members are ignored.
    pub fn parse(data: &[u8]) -> Result<Scaling, Error> {
        parse(data).ok_or_else(|| {
            Error::failed(
                "asset \"scaling\": expected nine numbers as \"mean\" and nine above 0 as \"scale\"",
            )
        })
    }
}

fn parse(data: &[u8]) -> Option<Scaling> {
    let value = json::parse(str::from_utf8(data).ok()?).ok()?;
    // Bounds that real data never reaches. They keep every feature in the range of an f32.
    let mean = numbers(value.get("mean")?, -1e12)?;
    let scale = numbers(value.get("scale")?, 1e-12)?;
    Some(Scaling { mean, scale })
}

/// Returns nine numbers from `low` to 1e12.
fn numbers(value: &Value, low: f64) -> Option<[f64; NUMERICS.len()]> {
    let Value::Array(items) = value else { return None };
    let number = |item: &Value| match item {
        Value::Number(number) if (low..=1e12).contains(number) => Some(*number),
        _ => None,
    };
    items.iter().map(number).collect::<Option<Vec<f64>>>()?.try_into().ok()
}

/// Returns the features of a record, computed in f64 and rounded once.
pub fn row(record: &Record, scaling: &Scaling) -> Row {
    let mut row = [0.0; FEATURES];
    for (i, value) in record.numerics.iter().enumerate() {
        row[i] = ((value - scaling.mean[i]) / scaling.scale[i]) as f32;
    }
    for (category, word) in record.categories.iter().enumerate() {
        row[first_feature(category) + word] = 1.0;
    }
    row
}

/// Returns the row without the information of one field: a numeric field is set to its mean, a
/// category to no value.
pub fn occluded(row: &Row, field: usize) -> Row {
    let mut row = *row;
    match field.checked_sub(NUMERICS.len()) {
        None => row[field] = 0.0,
        Some(category) => {
            let first = first_feature(category);
            row[first..first + CATEGORIES[category].1.len()].fill(0.0);
        }
    }
    row
}

fn first_feature(category: usize) -> usize {
    NUMERICS.len() + CATEGORIES[..category].iter().map(|(_, words)| words.len()).sum::<usize>()
}
