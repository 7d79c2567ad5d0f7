//! A small, strict JSON reader (RFC 8259) for plugins for which serde_json is too large: it adds 20
//! KB to a component instead of 100. It does not write JSON.

use std::borrow::Cow;

/// Maximum nesting of arrays and objects. The stack of a plugin is small.
const DEPTH: usize = 64;

/// A JSON value. Strings without escapes are borrowed from the text.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Correctly rounded, once; infinite if it is too large for an f64, such as `1e400`.
    Number(f64),
    /// A string, with its escapes resolved.
    Text(Cow<'a, str>),
    /// An array.
    Array(Vec<Value<'a>>),
    /// An object, in the order of the text; a name may occur twice.
    Object(Vec<(Cow<'a, str>, Value<'a>)>),
}

impl<'a> Value<'a> {
    /// Returns the member of an object. If the name occurs twice, the last one counts, as in most
    /// parsers.
    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        match self {
            Value::Object(members) => {
                members.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)
            }
            _ => None,
        }
    }
}

/// The text is not JSON, or nested deeper than 64 levels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NotJson {
    /// The byte of the text where the error is.
    pub at: usize,
}

/// Reads a text that is one JSON value.
///
/// ```
/// use hostler_plugin::json::{self, Value};
///
/// let value = json::parse(r#"{"age": 41}"#).unwrap();
/// assert_eq!(value.get("age"), Some(&Value::Number(41.0)));
/// assert_eq!(json::parse("[1,]").unwrap_err().at, 3);
/// ```
pub fn parse(text: &str) -> Result<Value<'_>, NotJson> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(DEPTH)?;
    reader.space();
    if reader.at < text.len() { Err(reader.fail()) } else { Ok(value) }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn fail(&self) -> NotJson {
        NotJson { at: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip(&mut self, is: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&is) {
            self.at += 1;
        }
    }

    fn space(&mut self) {
        self.skip(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
    }

    /// Returns the text from `start` to the current position. Both are next to an ASCII byte, so no
    /// character is split.
    fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// Consumes `byte` if it is the next one, and returns whether it was.
    fn takes(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), NotJson> {
        if self.takes(byte) { Ok(()) } else { Err(self.fail()) }
    }

    fn value(&mut self, depth: usize) -> Result<Value<'a>, NotJson> {
        self.space();
        match self.peek() {
            Some(b'{') => self.object(depth.checked_sub(1).ok_or(self.fail())?),
            Some(b'[') => self.array(depth.checked_sub(1).ok_or(self.fail())?),
            Some(b'"') => self.string().map(Value::Text),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'n') => self.word("null", Value::Null),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            _ => Err(self.fail()),
        }
    }

    fn word(&mut self, word: &str, value: Value<'a>) -> Result<Value<'a>, NotJson> {
        word.bytes().try_for_each(|byte| self.expect(byte))?;
        Ok(value)
    }

    fn array(&mut self, depth: usize) -> Result<Value<'a>, NotJson> {
        let mut items = Vec::new();
        self.list(b'[', b']', |reader| {
            items.push(reader.value(depth)?);
            Ok(())
        })?;
        Ok(Value::Array(items))
    }

    fn object(&mut self, depth: usize) -> Result<Value<'a>, NotJson> {
        let mut members = Vec::new();
        self.list(b'{', b'}', |reader| {
            reader.space();
            let name = reader.string()?;
            reader.space();
            reader.expect(b':')?;
            members.push((name, reader.value(depth)?));
            Ok(())
        })?;
        Ok(Value::Object(members))
    }

    /// Reads the items between two brackets.
    fn list(
        &mut self,
        open: u8,
        close: u8,
        mut item: impl FnMut(&mut Self) -> Result<(), NotJson>,
    ) -> Result<(), NotJson> {
        self.expect(open)?;
        self.space();
        if self.takes(close) {
            return Ok(());
        }
        loop {
            item(self)?;
            self.space();
            if self.takes(close) {
                return Ok(());
            }
            self.expect(b',')?;
        }
    }

    fn number(&mut self) -> Result<Value<'a>, NotJson> {
        let start = self.at;
        self.takes(b'-');
        if !self.takes(b'0') {
            self.digits()?;
        }
        if self.takes(b'.') {
            self.digits()?;
        }
        if self.takes(b'e') || self.takes(b'E') {
            let _ = self.takes(b'+') || self.takes(b'-');
            self.digits()?;
        }
        self.since(start).parse().map(Value::Number).map_err(|_| NotJson { at: start })
    }

    fn digits(&mut self) -> Result<(), NotJson> {
        let start = self.at;
        self.skip(|byte| byte.is_ascii_digit());
        if self.at == start { Err(self.fail()) } else { Ok(()) }
    }

    /// Reads a string. It is borrowed from the text unless it contains an escape.
    fn string(&mut self) -> Result<Cow<'a, str>, NotJson> {
        self.expect(b'"')?;
        let mut string = Cow::Borrowed("");
        loop {
            let start = self.at;
            self.skip(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20));
            string += self.since(start);
            if self.takes(b'"') {
                return Ok(string);
            }
            self.expect(b'\\')?;
            string.to_mut().push(self.escape()?);
        }
    }

    fn escape(&mut self) -> Result<char, NotJson> {
        let escape = self.peek();
        self.at += 1;
        Ok(match escape {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => return Err(self.fail()),
        })
    }

    /// Reads what follows `\u`: one UTF-16 unit, or the two of a surrogate pair. Half a pair is an
    /// error.
    fn unicode(&mut self) -> Result<char, NotJson> {
        let first = self.unit()?;
        let units = match first {
            0xd800..0xdc00 => {
                self.expect(b'\\')?;
                self.expect(b'u')?;
                vec![first, self.unit()?]
            }
            _ => vec![first],
        };
        match char::decode_utf16(units).next() {
            Some(Ok(character)) => Ok(character),
            _ => Err(self.fail()),
        }
    }

    fn unit(&mut self) -> Result<u16, NotJson> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16)).ok_or(self.fail())?;
            unit = unit * 16 + digit as u16;
            self.at += 1;
        }
        Ok(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_standard_allows() {
        let value = parse(r#" {"a" : [1, -0.5e+1, null], "b":"\u00e9\ud83d\ude00\n", "a":true} "#).unwrap();
        assert_eq!(value.get("a"), Some(&Value::Bool(true)));
        assert_eq!(value.get("b"), Some(&Value::Text("é\u{1F600}\n".into())));
        let Value::Object(members) = value else { panic!("no object") };
        assert_eq!(members[0].1, Value::Array(vec![Value::Number(1.0), Value::Number(-5.0), Value::Null]));
        assert_eq!(parse("1e400"), Ok(Value::Number(f64::INFINITY)));
        assert_eq!(parse("[]"), Ok(Value::Array(vec![])));
    }

    #[test]
    fn refuses_what_it_does_not() {
        for text in [
            "",
            " ",
            "nul",
            "NaN",
            "01",
            "1.",
            ".5",
            "+1",
            "-",
            "1e",
            "[1,]",
            "[1 2]",
            "{1:2}",
            r#"{"a"}"#,
            "{}{}",
            "'a'",
            "\"\n\"",
            r#""\x""#,
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud800\u0041""#,
            r#""\u12g4""#,
            r#""a"#,
            "\u{feff}1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&"[".repeat(100_000)).is_err());
    }
}
