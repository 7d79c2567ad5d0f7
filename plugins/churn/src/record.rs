//! A customer's record: its twelve fields, the values that each allows, and the errors for others.
//! An unknown field is reported before any other error, because it is often a misspelled one.

use hostler_plugin::Error;
use hostler_plugin::json::Value;

use crate::value::{cut, object, quoted, shown};

/// The fields that become one number each, in the order of the features.
pub const NUMERICS: [(&str, Rule); 9] = [
    ("credit_score", Rule::Whole(300, 850)),
    ("age", Rule::Whole(18, 100)),
    ("tenure", Rule::Whole(0, 10)),
    ("balance", Rule::Number(0, 300_000)),
    ("num_of_products", Rule::Whole(1, 4)),
    ("has_cr_card", Rule::Boolean),
    ("is_active_member", Rule::Boolean),
    ("estimated_salary", Rule::Number(0, 250_000)),
    ("points_earned", Rule::Whole(0, 1000)),
];

/// The fields that become one feature for each possible value, in the order of the features.
pub const CATEGORIES: [(&str, &[&str]); 3] = [
    ("geography", &["France", "Germany", "Spain"]),
    ("gender", &["Female", "Male"]),
    ("card_type", &["DIAMOND", "GOLD", "PLATINUM", "SILVER"]),
];

pub const FIELDS: usize = NUMERICS.len() + CATEGORIES.len();

/// Returns the names of all fields, numeric fields first.
pub fn names() -> impl Iterator<Item = &'static str> {
    NUMERICS.iter().map(|(name, _)| *name).chain(CATEGORIES.iter().map(|(name, _)| *name))
}

/// The values that a numeric field allows; the bounds are inclusive.
#[derive(Clone, Copy)]
pub enum Rule {
    Whole(u32, u32),
    Number(u32, u32),
    Boolean,
}

#[derive(Debug, PartialEq)]
pub struct Record {
    pub numerics: [f64; NUMERICS.len()],
    /// The index of the value among those of the category.
    pub categories: [usize; CATEGORIES.len()],
}

impl Record {
    /// All errors are the caller's fault and name the field.
    pub fn parse(text: &str) -> Result<Record, Error> {
        let object = object(text)?;
        if let Some(name) = first_unknown(&object) {
            return Err(unknown(name));
        }
        let mut record = Record { numerics: [0.0; NUMERICS.len()], categories: [0; CATEGORIES.len()] };
        for (slot, (name, rule)) in record.numerics.iter_mut().zip(&NUMERICS) {
            *slot = field(&object, name, |value| rule.read(value), || rule.to_string())?;
        }
        for (slot, (name, words)) in record.categories.iter_mut().zip(&CATEGORIES) {
            *slot = field(&object, name, |value| word(words, value), || one_of(words))?;
        }
        Ok(record)
    }
}

impl Rule {
    fn read(self, value: &Value) -> Option<f64> {
        match (self, value) {
            (Rule::Boolean, Value::Bool(value)) => Some((*value).into()),
            (Rule::Whole(low, high), Value::Number(value)) => {
                (value.fract() == 0.0 && (low.into()..=high.into()).contains(value)).then_some(*value)
            }
            (Rule::Number(low, high), Value::Number(value)) => {
                (low.into()..=high.into()).contains(value).then_some(*value)
            }
            _ => None,
        }
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Rule::Whole(low, high) => write!(f, "a whole number from {low} to {high}"),
            Rule::Number(low, high) => write!(f, "a number from {low} to {high}"),
            Rule::Boolean => f.write_str("true or false"),
        }
    }
}

fn word(words: &[&str], value: &Value) -> Option<usize> {
    match value {
        Value::Text(text) => words.iter().position(|word| word == text),
        _ => None,
    }
}

fn one_of(words: &[&str]) -> String {
    format!("one of {}", words.join(", "))
}

/// Reads one member, or returns an error that says what was expected.
fn field<T>(
    object: &Value,
    name: &str,
    read: impl Fn(&Value) -> Option<T>,
    expected: impl Fn() -> String,
) -> Result<T, Error> {
    let value = object.get(name);
    value.and_then(read).ok_or_else(|| {
        let got = value.map_or("nothing".into(), shown);
        Error::invalid(name, format!("{name}: expected {}, got {got}", expected()))
    })
}

/// Returns the first unknown field in alphabetical order, because parsers do not keep the order of
/// the text.
fn first_unknown<'a>(object: &'a Value) -> Option<&'a str> {
    let Value::Object(members) = object else { return None };
    let unknown =
        members.iter().map(|(name, _)| &**name).filter(|member| names().all(|name| name != *member));
    unknown.min()
}

fn unknown(name: &str) -> Error {
    let hint = match closest(name) {
        Some(known) => format!("did you mean {known}?"),
        None => format!("a record has {}", names().collect::<Vec<_>>().join(", ")),
    };
    Error::invalid(cut(name), format!("unknown field {}: {hint}", quoted(name)))
}

/// Returns the field with the nearest name, if at most a third of its letters differ. Case and
/// separators are ignored: `CreditScore` matches `credit_score`.
fn closest(name: &str) -> Option<&'static str> {
    let letters = letters(name);
    let near = |known: &&str| {
        let known = self::letters(known);
        let distance = distance(&letters, &known);
        (distance * 3 <= known.len()).then_some(distance)
    };
    names()
        .filter_map(|known| Some((near(&known)?, known)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// Returns the first 20 letters; no field name is longer.
fn letters(name: &str) -> Vec<char> {
    let letters = name.chars().filter(|letter| !matches!(letter, '_' | '-' | ' '));
    letters.map(|letter| letter.to_ascii_lowercase()).take(20).collect()
}

/// Returns the edit distance: letters to insert, delete, replace or swap with the next one.
fn distance(a: &[char], b: &[char]) -> usize {
    // steps[i][j]: the distance between the first i letters of a and the first j letters of b.
    let mut steps = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            steps[i][j] = match (i, j) {
                (0, n) | (n, 0) => n,
                _ => {
                    let replaced = steps[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    let changed = replaced.min(steps[i - 1][j] + 1).min(steps[i][j - 1] + 1);
                    let swaps = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                    if swaps { changed.min(steps[i - 2][j - 2] + 1) } else { changed }
                }
            };
        }
    }
    steps[a.len()][b.len()]
}
