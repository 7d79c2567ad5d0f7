//! Runs the records of `tests/data/churn_cases.json` without a host, and compares rows and errors.

use hostler_plugin::json::{self, Value};
use hostler_plugin::{Error, ErrorKind};

use crate::features::{FEATURES, Row, Scaling, occluded, row};
use crate::record::{self, Record};

const CASES: &str = include_str!("../../../tests/data/churn_cases.json");

fn text<'a>(value: &'a Value) -> Option<&'a str> {
    match value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

fn items<'a>(value: &'a Value<'a>) -> &'a [Value<'a>] {
    match value {
        Value::Array(items) => items,
        _ => panic!("no array: {value:?}"),
    }
}

/// The features bit by bit, as they are in the tensor.
fn bits(row: &Row) -> [u32; FEATURES] {
    row.map(f32::to_bits)
}

fn expected_row(value: &Value) -> Row {
    let number = |value: &Value| match value {
        Value::Number(number) => *number as f32,
        _ => panic!("no number: {value:?}"),
    };
    items(value).iter().map(number).collect::<Vec<_>>().try_into().unwrap()
}

#[test]
fn records_become_the_expected_rows_or_errors() {
    let cases = json::parse(CASES).unwrap();
    let (start, end) = (CASES.find(r#"{"mean""#).unwrap(), CASES.find(",\n \"bad_scaling_error\"").unwrap());
    let scaling = Scaling::parse(&CASES.as_bytes()[start..end]).unwrap();

    let mut checked = 0;
    for case in items(cases.get("preprocess").unwrap()) {
        let Some(input) = case.get("json").and_then(text) else { continue };
        let name = case.get("name").unwrap();
        match (Record::parse(input), case.get("rows")) {
            (Ok(record), Some(rows)) => {
                let row = row(&record, &scaling);
                let rows = items(rows);
                assert_eq!(bits(&row), bits(&expected_row(&rows[0])), "{name:?}");
                for (field, expected) in rows[1..].iter().enumerate() {
                    assert_eq!(bits(&occluded(&row, field)), bits(&expected_row(expected)), "{name:?}");
                }
                assert!(rows.len() == 1 || rows.len() == 1 + record::FIELDS, "{name:?}");
            }
            (Err(Error { kind, message, field }), None) => {
                let error = case.get("error").unwrap();
                assert_eq!(kind, ErrorKind::InvalidInput, "{name:?}");
                assert_eq!(error.get("message").and_then(text), Some(&*message), "{name:?}");
                assert_eq!(error.get("field").and_then(text), field.as_deref(), "{name:?}");
            }
            // The error is in a parameter, which only a host provides.
            (Ok(_), None) if case.get("parameters").is_some() => {}
            (got, _) => panic!("{name:?}: {got:?}"),
        }
        checked += 1;
    }
    assert!(checked > 150, "{checked}");
}

#[test]
fn a_scaling_of_another_form_is_refused() {
    let cases = json::parse(CASES).unwrap();
    for case in items(cases.get("bad_scalings").unwrap()) {
        let scaling = Scaling::parse(case.get("text").and_then(text).unwrap().as_bytes());
        assert!(scaling.is_err(), "{:?}", case.get("name"));
    }
}
