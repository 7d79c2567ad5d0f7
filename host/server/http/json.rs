//! JSON bodies of requests: how they are parsed, and how errors of the parser read.

use crate::error::{Error, Result};
use std::fmt::Write;

/// Parses a JSON object. `otherwise` begins the message of the error.
pub fn parse_object<'a, T: serde::Deserialize<'a>>(text: &'a [u8], otherwise: &str) -> Result<T> {
    parse_with(text, otherwise, std::marker::PhantomData)
}

/// Parses a JSON object, like `parse_object`, with a seed that reads it.
pub fn parse_with<'a, S: serde::de::DeserializeSeed<'a>>(
    text: &'a [u8],
    otherwise: &str,
    seed: S,
) -> Result<S::Value> {
    let text = without_bom(text);
    // serde would accept a list of the fields' values as well.
    match text.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => Err(Error::invalid(EMPTY)),
        Some(b'{') => read_whole(text, seed).map_err(|error| unreadable(text, otherwise, &error)),
        Some(_) if is_utf16(text) => Err(Error::invalid(format!("{otherwise}: {UTF16}"))),
        Some(_) => Err(Error::invalid(format!("{otherwise}: expected a JSON object"))),
    }
}

/// Parses any JSON value. `otherwise` begins the message of the error.
pub fn parse_json<'a, T: serde::Deserialize<'a>>(text: &'a [u8], otherwise: &str) -> Result<T> {
    let text = without_bom(text);
    if text.is_empty() {
        return Err(Error::invalid(EMPTY));
    }
    if is_utf16(text) {
        return Err(Error::invalid(format!("{otherwise}: {UTF16}")));
    }
    read_whole(text, std::marker::PhantomData).map_err(|error| unreadable(text, otherwise, &error))
}

const EMPTY: &str = "the body is empty; send a JSON object";

const UTF16: &str = "it is UTF-16; send JSON as UTF-8";

/// Returns a text without the byte order mark with which some programs begin UTF-8.
pub fn without_bom(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

fn is_utf16(text: &[u8]) -> bool {
    text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff")
}

fn unreadable(text: &[u8], otherwise: &str, error: &serde_json::Error) -> Error {
    let hint = if names_no_number(text, error) { NO_NUMBER } else { "" };
    Error::invalid(format!("{otherwise}: {}{hint}", in_plain_words(error)))
}

const NO_NUMBER: &str = "; JSON has no NaN and no infinities: send such numbers as binary data over the Open Inference \
                         Protocol (binary_data_size), or over gRPC";

/// Whether a text stops being JSON at the name of a value that is no JSON number, such as `NaN`.
fn names_no_number(text: &[u8], error: &serde_json::Error) -> bool {
    let lines = text.split_inclusive(|&byte| byte == b'\n').take(error.line().saturating_sub(1));
    let at = lines.map(<[u8]>::len).sum::<usize>() + error.column().saturating_sub(1);
    // The error is at the first byte that does not fit, which may be the second of the word.
    (at.saturating_sub(2)..=at).filter_map(|start| text.get(start..)).any(|word| {
        let word = word.strip_prefix(b"-").or(word.strip_prefix(b"+")).unwrap_or(word);
        word.get(..3)
            .is_some_and(|start| start.eq_ignore_ascii_case(b"nan") || start.eq_ignore_ascii_case(b"inf"))
    })
}

fn read_whole<'a, S: serde::de::DeserializeSeed<'a>>(
    text: &'a [u8],
    seed: S,
) -> serde_json::Result<S::Value> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = seed.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Bytes of a parser's message that are kept: it may quote the whole name of a field.
const WORDS_BYTES_MAX: usize = 1 << 10;

/// Returns serde's message without the names of this program's types.
pub fn in_plain_words(error: &serde_json::Error) -> String {
    let mut message = Cut(String::new());
    // The only error is that the message does not fit.
    let _ = write!(message, "{error}");
    let message = message.0.as_str();
    let type_or_value = ["invalid type: ", "invalid value: "];
    let Some(rest) = type_or_value.iter().find_map(|start| message.strip_prefix(start)) else {
        return message.to_owned();
    };
    let Some((got, wanted)) = rest.rsplit_once(", expected ") else { return message.to_owned() };
    let (wanted, position) = wanted.find(" at line ").map_or((wanted, ""), |at| wanted.split_at(at));
    let got = match got.split_once(' ') {
        Some(("integer", number)) => format!("the number {}", number.trim_matches('`')),
        Some(("floating", number)) => {
            format!("the number {}", number.trim_start_matches("point ").trim_matches('`'))
        }
        Some(("boolean", value)) => value.trim_matches('`').to_owned(),
        Some(("string", text)) => format!("the text {text}"),
        _ => match got {
            "map" => "an object".to_owned(),
            "sequence" => "a list".to_owned(),
            got => got.to_owned(),
        },
    };
    let wanted = match wanted {
        "i64" | "u64" | "usize" => "a whole number of 64 bits",
        "f64" => "a number",
        "a map" => "an object",
        "a sequence" => "a list",
        "a boolean" => "true or false",
        wanted if wanted.starts_with("struct ") => "an object",
        wanted => wanted,
    };
    format!("got {got}, expected {wanted}{position}")
}

/// Text that is cut at `WORDS_BYTES_MAX`.
struct Cut(String);

impl Write for Cut {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let rest = WORDS_BYTES_MAX.saturating_sub(self.0.len());
        self.0.push_str(&text[..text.floor_char_boundary(rest)]);
        if text.len() > rest { Err(std::fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_type_of_this_program_is_named() {
        #[derive(Debug, serde::Deserialize)]
        #[expect(dead_code, reason = "it is never read")]
        struct Thing {
            number: Option<i64>,
            list: Option<Vec<Thing>>,
            flag: Option<bool>,
        }
        for (text, expected) in [
            (
                r#"{"number": 1.5}"#,
                "got the number 1.5, expected a whole number of 64 bits at line 1 column 14",
            ),
            (
                r#"{"number": "1, expected f64"}"#,
                "got the text \"1, expected f64\", expected a whole number of 64 bits",
            ),
            (r#"{"number": {}}"#, "got an object, expected a whole number of 64 bits"),
            (r#"{"number": true}"#, "got true, expected a whole number of 64 bits"),
            (r#"{"list": {}}"#, "got an object, expected a list"),
            (r#"{"list": [7]}"#, "got the number 7, expected an object"),
            (r#"{"flag": null, "list": [null]}"#, "got null, expected an object"),
            (r#"{"flag": []}"#, "got a list, expected true or false"),
            (
                r#"{"number": 9223372036854775808}"#,
                "got the number 9223372036854775808, expected a whole number",
            ),
            (r#"{"flag": tru}"#, "expected ident"),
        ] {
            let message = parse_object::<Thing>(text.as_bytes(), "not a thing").unwrap_err();
            let message = message.message().strip_prefix("not a thing: ").unwrap();
            assert!(message.starts_with(expected), "{text}: {message}");
        }
    }
}
