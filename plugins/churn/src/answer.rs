//! Formats the model's probabilities as the JSON answer. It does so manually, because the same
//! number prints differently in different languages unless the number of decimals is fixed.

use hostler_plugin::Error;
use std::fmt::Write;

use crate::record;
use crate::{CHURN, HIGH_RISK, MEDIUM_RISK};

/// Takes rows of two probabilities, to stay and to leave. The rows after the first are the record
/// without one field each; the difference is what that field contributes.
pub fn json(probabilities: &[f32]) -> Result<String, Error> {
    let leaving = probabilities.chunks_exact(2).map(|row| f64::from(row[1]));
    // A sum of many trees can be slightly above 1.
    if let Some(row) = leaving.clone().position(|p| !(-0.001..=1.001).contains(&p)) {
        return Err(Error::failed(format!("tensor \"probabilities\": row {row} is no probability")));
    }
    let mut rows = leaving;
    let probability = rows.next().ok_or_else(|| Error::failed("tensor \"probabilities\": no rows"))?;

    let (churn, printed, risk) = (probability >= CHURN, fixed(probability), risk(probability));
    let mut json = format!(r#"{{"churn":{churn},"probability":{printed},"risk":"{risk}""#);
    for (i, (name, occluded)) in record::names().zip(rows).enumerate() {
        let before = if i == 0 { r#","contributions":{"# } else { "," };
        let contribution = fixed(probability - occluded);
        write!(json, r#"{before}"{name}":{contribution}"#).expect("invariant: a string takes all");
    }
    json.push_str(if probabilities.len() > 2 { "}}" } else { "}" });
    Ok(json)
}

fn risk(probability: f64) -> &'static str {
    match probability {
        p if p >= HIGH_RISK => "high",
        p if p >= MEDIUM_RISK => "medium",
        _ => "low",
    }
}

/// Formats with six decimals, rounding halves away from zero, never as `-0.000000`. The languages'
/// own formats round halves differently.
fn fixed(value: f64) -> String {
    let millionths = millionths(value.abs());
    let sign = if value < 0.0 && millionths > 0 { "-" } else { "" };
    format!("{sign}{}.{:06}", millionths / 1_000_000, millionths % 1_000_000)
}

/// Returns the nearest whole number of millionths. `size` is not negative and below 1e9.
pub fn millionths(size: f64) -> u64 {
    (size * 1e6 + 0.5).floor() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_six_decimals() {
        for (value, expected) in [
            (0.0, "0.000000"),
            (1.0, "1.000000"),
            (0.123_456_789, "0.123457"),
            // Halves: the first three are exact in binary.
            (0.007_812_5, "0.007813"),
            (-0.007_812_5, "-0.007813"),
            (0.023_437_5, "0.023438"),
            (-4.9e-7, "0.000000"),
            (-5.1e-7, "-0.000001"),
        ] {
            assert_eq!(fixed(value), expected);
        }
    }

    #[test]
    fn answers_name_risk_and_contributions() {
        assert_eq!(json(&[0.75, 0.25]).unwrap(), r#"{"churn":false,"probability":0.250000,"risk":"low"}"#);
        assert_eq!(json(&[0.5, 0.5]).unwrap(), r#"{"churn":true,"probability":0.500000,"risk":"medium"}"#);
        let explained = json([[0.25, 0.75]; 1 + record::FIELDS].as_flattened()).unwrap();
        assert!(explained.starts_with(
            r#"{"churn":true,"probability":0.750000,"risk":"high","contributions":{"credit_score":0.000000,"#
        ));
        assert!(explained.ends_with(r#""card_type":0.000000}}"#));
        assert_eq!(
            json(&[0.0, f32::NAN]).unwrap_err().message,
            "tensor \"probabilities\": row 0 is no probability"
        );
    }
}
