//! A record as the numbers that the model was trained on: nine scaled numerics, then one feature for
//! each word of each category, 1 where the record has that word.

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
    /// From `{"mean": [nine numbers], "scale": [nine numbers]}`; other members are left alone.
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
    // Bounds that no real data reaches, so that no feature is too large for an f32.
    let mean = numbers(value.get("mean")?, -1e12)?;
    let scale = numbers(value.get("scale")?, 1e-12)?;
    Some(Scaling { mean, scale })
}

/// Nine numbers from `low` to 1e12.
fn numbers(value: &Value, low: f64) -> Option<[f64; NUMERICS.len()]> {
    let Value::Array(items) = value else { return None };
    let number = |item: &Value| match item {
        Value::Number(number) if (low..=1e12).contains(number) => Some(*number),
        _ => None,
    };
    items.iter().map(number).collect::<Option<Vec<f64>>>()?.try_into().ok()
}

/// The features of a record: computed in f64 and rounded once.
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

/// The row without what one field says: a numeric is at its mean, a category has no word.
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
