//! Compares an answer with the expected one.

use serde_json::Value;

/// Characters of a value that a difference shows.
const SHOWN: usize = 400;

/// Returns the first difference between `expect` and `got`, with its place.
pub fn difference(expect: &Value, got: &Value, tolerance: f64, place: String) -> Option<String> {
    let differs = || {
        Some(format!(
            "result{place}: expected {}, got {}",
            short(&expect.to_string(), SHOWN),
            short(&got.to_string(), SHOWN)
        ))
    };
    match (expect, got) {
        (Value::Number(a), Value::Number(b)) => {
            // FP64 cannot distinguish large whole numbers.
            let far = match (a.as_i128(), b.as_i128()) {
                (Some(a), Some(b)) => (a - b).unsigned_abs() as f64 > tolerance,
                _ => (a.as_f64()? - b.as_f64()?).abs() > tolerance,
            };
            far.then(differs).flatten()
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .find_map(|(index, (a, b))| difference(a, b, tolerance, format!("{place}[{index}]"))),
        // An answer may have more keys than a check expects.
        (Value::Object(a), Value::Object(b)) => a.iter().find_map(|(key, a)| match b.get(key) {
            Some(b) => difference(a, b, tolerance, format!("{place}.{key}")),
            None => {
                Some(format!("result{place}.{key}: expected {}, got nothing", short(&a.to_string(), SHOWN)))
            }
        }),
        _ if expect == got => None,
        _ => differs(),
    }
}

/// Returns a text with at most so many characters.
pub(super) fn short(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_name_their_place_and_respect_the_tolerance() {
        let expect = json!({"p": [0.5, 1.0], "label": "x"});
        let diff = |got: Value, tolerance| difference(&expect, &got, tolerance, String::new());
        assert_eq!(diff(json!({"p": [0.5, 1.0], "label": "x"}), 0.0), None);
        assert_eq!(diff(json!({"p": [0.50001, 1.0], "label": "x"}), 1e-4), None);
        let far = diff(json!({"p": [0.6, 1.0], "label": "x"}), 1e-4).unwrap();
        assert_eq!(far, "result.p[0]: expected 0.5, got 0.6");
        assert_eq!(diff(json!({"p": [0.5, 1.0], "label": "x", "more": 1}), 0.0), None);
        assert_eq!(diff(json!({"p": [0.5, 1.0]}), 0.0).unwrap(), "result.label: expected \"x\", got nothing");
        assert!(diff(json!({"p": [0.5], "label": "x"}), 1.0).unwrap().starts_with("result.p:"));
        assert!(diff(json!({"p": [0.5, 1.0], "label": "y"}), 1.0).unwrap().starts_with("result.label:"));
    }
}
