//! The cases of a file, as written: a request in one of its forms, and what is expected.
//!
//! A file is a JSON array of cases, or one case. A request has the form of one of the interfaces:
//! `data` is that of `POST /predict`, `body` is that of `POST /predict/{model}`, and `inputs` are
//! those of the Open Inference Protocol.

use crate::error::{Error, Result};
use base64::Engine;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// The most characters of an unreadable value that an error shows.
const SHOWN: usize = 60;

/// One request and its expected answer.
#[derive(Debug)]
pub struct Case {
    /// Shown in reports. Without a name, a case is called by its position.
    pub name: Option<String>,
    /// The model, if the file is not that of a model: `name`, or `name:version`.
    pub model: Option<String>,
    pub request: CaseRequest,
    pub parameters: Map<String, Value>,
    /// `None` if the case expects nothing yet.
    pub expected: Option<Expected>,
}

#[derive(Debug)]
pub enum CaseRequest {
    Data(Box<RawValue>),
    Body { content_type: String, data: Bytes },
    Inputs(Vec<WrittenTensor>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Expected {
    /// The `result` of `POST /predict`. Objects of the answer may have more keys.
    Result(Value),
    /// The bytes of the answer. Without a content type, any is right.
    Body {
        content_type: Option<String>,
        data: Bytes,
    },
    /// Outputs. The answer may have more.
    Outputs(Vec<WrittenTensor>),
    Error(ExpectedError),
}

impl Expected {
    /// The keys of a case that say what is expected.
    pub const KEYS: [&str; 4] = ["expect", "expect_body", "expect_outputs", "expect_error"];
}

/// A tensor in the JSON form of the Open Inference Protocol.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenTensor {
    pub name: String,
    pub datatype: String,
    pub shape: Vec<i64>,
    pub data: Value,
}

/// An expected error. What is not given is not compared.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedError {
    pub kind: Option<String>,
    pub field: Option<String>,
    /// A part of the message.
    pub message: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Option<String>,
    model: Option<String>,
    #[serde(default, deserialize_with = "given_text")]
    data: Option<Box<RawValue>>,
    body: Option<WrittenBytes>,
    inputs: Option<Vec<WrittenTensor>>,
    #[serde(default)]
    parameters: Map<String, Value>,
    // `null` is an answer, and not the same as no expectation.
    #[serde(default, deserialize_with = "given")]
    expect: Option<Value>,
    expect_body: Option<WrittenBytes>,
    expect_outputs: Option<Vec<WrittenTensor>>,
    expect_error: Option<ExpectedError>,
}

fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// `null` is data as well.
fn given_text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenBytes {
    content_type: Option<String>,
    text: Option<String>,
    base64: Option<String>,
    file: Option<String>,
}

/// Reads a file that a case names, relative to the folder of the cases.
pub type ReadFile<'a> = &'a dyn Fn(&str) -> Result<Bytes>;

/// Parses the cases of a file.
///
/// # Errors
/// `invalid` if the file has another form; the message names the case.
pub fn parse(content: &[u8], read: ReadFile<'_>) -> Result<Vec<Case>> {
    let unreadable = |error: serde_json::Error| Error::invalid(format!("it is not a list of cases: {error}"));
    let content = without_mark(content);
    let is_list = content.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let written: Vec<Written> = match is_list {
        true => serde_json::from_slice(content).map_err(unreadable)?,
        false => vec![serde_json::from_slice(content).map_err(unreadable)?],
    };
    let cases = written.into_iter().enumerate().map(|(index, written)| {
        let named = written.name.clone();
        case(written, read).map_err(|error| error.context(title(index, named.as_deref())))
    });
    cases.collect()
}

/// Some editors begin a text with a byte order mark.
pub fn without_mark(content: &[u8]) -> &[u8] {
    content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content)
}

/// Returns what a report calls a case.
pub fn title(index: usize, name: Option<&str>) -> String {
    name.map_or_else(|| format!("case {index}"), |name| format!("case {index} \"{name}\""))
}

fn case(written: Written, read: ReadFile<'_>) -> Result<Case> {
    let Written { name, model, data, body, inputs, parameters, .. } = written;
    let request = match (data, body, inputs) {
        (Some(data), None, None) => CaseRequest::Data(data),
        (None, Some(body), None) => {
            let content_type = body.content_type.clone();
            CaseRequest::Body {
                content_type: content_type.unwrap_or_default(),
                data: body.bytes("body", read)?,
            }
        }
        (None, None, Some(inputs)) => CaseRequest::Inputs(inputs),
        _ => {
            return Err(Error::invalid(
                "give exactly one of data (as in POST /predict), body (as in POST /predict/{model}) and inputs (as in the \
                 Open Inference Protocol)",
            ));
        }
    };
    let Written { expect, expect_body, expect_outputs, expect_error, .. } = written;
    let expected = match (expect, expect_body, expect_outputs, expect_error) {
        (None, None, None, None) => None,
        (Some(result), None, None, None) => Some(Expected::Result(result)),
        (None, Some(body), None, None) => {
            let content_type = body.content_type.clone();
            Some(Expected::Body { content_type, data: body.bytes("expect_body", read)? })
        }
        (None, None, Some(outputs), None) => Some(Expected::Outputs(outputs)),
        (None, None, None, Some(error)) => Some(Expected::Error(error)),
        _ => {
            return Err(Error::invalid(
                "give only one of expect, expect_body, expect_outputs and expect_error",
            ));
        }
    };
    Ok(Case { name, model, request, parameters, expected })
}

impl WrittenBytes {
    fn bytes(self, what: &str, read: ReadFile<'_>) -> Result<Bytes> {
        match (self.text, self.base64, self.file) {
            (Some(text), None, None) => Ok(text.into()),
            (None, Some(text), None) => {
                let compact: String = text.split_ascii_whitespace().collect();
                let decoded = base64::engine::general_purpose::STANDARD.decode(&compact);
                decoded.map(Bytes::from).map_err(|error| {
                    let shown: String = compact.chars().take(SHOWN).collect();
                    Error::invalid(format!("{what}: \"{shown}\" is not base64: {error}"))
                })
            }
            (None, None, Some(file)) => {
                read(&file).map_err(|error| error.context(format!("{what}: file \"{file}\"")))
            }
            _ => Err(Error::invalid(format!("{what}: give exactly one of text, base64 and file"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<Case>> {
        parse(text.as_bytes(), &|name| match name {
            "cat.jpg" => Ok(Bytes::from_static(b"\xff\xd8")),
            _ => Err(Error::not_found("no such file")),
        })
    }

    #[test]
    fn requests_and_expectations_have_the_forms_of_the_interfaces() {
        let cases = parsed(
            r#"[{"data": 1, "expect": null},
                {"name": "cat", "body": {"content_type": "image/jpeg", "file": "cat.jpg"}, "expect_body": {"base64": "/9g="}},
                {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}], "expect_error": {"kind": "failed"}},
                {"data": {}}, {"data": null, "expect": 1}]"#,
        )
        .unwrap();
        assert_eq!(cases[0].expected, Some(Expected::Result(Value::Null)));
        let CaseRequest::Body { content_type, data } = &cases[1].request else { panic!("{cases:?}") };
        assert_eq!((content_type.as_str(), &**data), ("image/jpeg", &b"\xff\xd8"[..]));
        assert_eq!(cases[1].expected, Some(Expected::Body { content_type: None, data: data.clone() }));
        assert!(matches!(cases[2].expected, Some(Expected::Error(_))));
        assert!(cases[3].expected.is_none());
        assert!(matches!(&cases[4].request, CaseRequest::Data(data) if data.get() == "null"));
        assert_eq!(parsed(r#"{"data": 1}"#).unwrap().len(), 1);
    }

    #[test]
    fn faults_name_the_case_and_the_mend() {
        for (text, parts) in [
            ("[{}]", &["case 0", "exactly one of data"][..]),
            (r#"[{"data": 1, "body": {"text": ""}}]"#, &["exactly one of data"]),
            (
                r#"[{"name": "n", "data": 1, "expect": 1, "expect_error": {}}]"#,
                &["case 0 \"n\"", "only one of expect"],
            ),
            (r#"[{"body": {"base64": "!"}}]"#, &["body", "not base64"]),
            (r#"[{"body": {"file": "dog.jpg"}}]"#, &["dog.jpg", "no such file"]),
            (r#"[{"body": {"file": "a", "text": "b"}}]"#, &["exactly one of text, base64 and file"]),
            (r#"[{"dta": 1}]"#, &["unknown field `dta`"]),
            ("nothing", &["not a list of cases"]),
        ] {
            let error = parsed(text).unwrap_err().to_string();
            for part in parts {
                assert!(error.contains(part), "{text}: {error}");
            }
        }
    }
}
