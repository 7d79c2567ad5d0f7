//! Escapes characters with which text from clients, guests and files could pass as something else:
//! as another line, as a command to a terminal, or as text in another order.

use std::borrow::Cow;
use std::fmt::Write;

/// What a text that is written consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One line. Only the newline at its end is kept.
    Line,
    /// One line with colors for a terminal (`ESC [ … m`), which are kept.
    ColoredLine,
    /// Lines that the host has laid out. Newlines and tabs are kept.
    Lines,
    /// JSON. Its newlines are kept: they are between values, never in them.
    Json,
}

/// Returns text with these characters escaped: line breaks as far as `form` does not keep them,
/// other control characters, and those that change the direction of text. Bytes that are not UTF-8
/// are escaped as well.
pub fn escape(text: &[u8], form: Form) -> Cow<'_, [u8]> {
    let (body, end) = match text.split_last() {
        Some((b'\n', body)) => (body, &b"\n"[..]),
        _ => (text, &b""[..]),
    };
    // Nearly all lines of nearly all hosts. In blocks, which take a few vector instructions each.
    let is_plain = |block: &[u8]| block.iter().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~'));
    if body.chunks(64).all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 64);
    for chunk in body.utf8_chunks() {
        let valid = chunk.valid();
        for (at, one) in valid.char_indices() {
            if !is_deceptive(one) || is_kept(one, &valid[at..], form) {
                escaped.push(one);
            } else {
                push_escaped(&mut escaped, one, form);
            }
        }
        for byte in chunk.invalid() {
            let _ = match form {
                Form::Json => write!(escaped, "\u{fffd}"),
                _ => write!(escaped, "\\x{byte:02x}"),
            };
        }
    }
    let mut escaped = escaped.into_bytes();
    escaped.extend_from_slice(end);
    Cow::Owned(escaped)
}

/// Returns a part of a line with everything escaped that would end the line or change its look.
pub fn one_line(text: &str) -> Cow<'_, str> {
    match text.contains(is_deceptive) {
        false => Cow::Borrowed(text),
        true => {
            let mut escaped = String::with_capacity(text.len() + 64);
            for one in text.chars() {
                match is_deceptive(one) {
                    true => push_escaped(&mut escaped, one, Form::Line),
                    false => escaped.push(one),
                }
            }
            Cow::Owned(escaped)
        }
    }
}

/// Whether a character ends a line, controls a terminal, or changes the direction of text.
fn is_deceptive(one: char) -> bool {
    one.is_control()
        || matches!(
            one,
            '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'
                | '\u{2029}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        )
}

/// Whether the form keeps a character, which `rest` begins with.
fn is_kept(one: char, rest: &str, form: Form) -> bool {
    match form {
        Form::Line => false,
        Form::ColoredLine => one == '\u{1b}' && is_color(rest),
        Form::Lines | Form::Json => matches!(one, '\n' | '\t'),
    }
}

/// Whether text begins with a sequence that sets a color or a style. The log's formatter has
/// escaped those of guests and clients.
fn is_color(text: &str) -> bool {
    let Some(parameters) = text.strip_prefix("\u{1b}[") else { return false };
    parameters.trim_start_matches(|one: char| one.is_ascii_digit() || one == ';').starts_with('m')
}

fn push_escaped(escaped: &mut String, one: char, form: Form) {
    match (one, form) {
        // JSON has escaped its own control characters, except the last of ASCII.
        (_, Form::Json) => {
            let _ = write!(escaped, "\\u{:04x}", u32::from(one));
        }
        ('\n', _) => escaped.push_str("\\n"),
        ('\r', _) => escaped.push_str("\\r"),
        ('\t', _) => escaped.push_str("\\t"),
        _ => escaped.extend(one.escape_unicode()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &str, form: Form) -> String {
        String::from_utf8(escape(text.as_bytes(), form).into_owned()).expect("it is text")
    }

    #[test]
    fn only_what_the_form_keeps_is_left() {
        let text = "a\tb\nc\rd\u{1b}[31me\u{7f}f\u{85}g\u{2028}h\u{202e}i\u{2066}ü\n";
        let rest = "\\u{7f}f\\u{85}g\\u{2028}h\\u{202e}i\\u{2066}ü\n";
        assert_eq!(escaped(text, Form::Line), format!("a\\tb\\nc\\rd\\u{{1b}}[31me{rest}"));
        assert_eq!(escaped(text, Form::ColoredLine), format!("a\\tb\\nc\\rd\u{1b}[31me{rest}"));
        assert_eq!(escaped(text, Form::Lines), format!("a\tb\nc\\rd\\u{{1b}}[31me{rest}"));
        assert_eq!(format!("{}\n", one_line(text.trim_end())), escaped(text, Form::Line));
        assert_eq!(escaped("\u{1b}]0;title\u{7}", Form::ColoredLine), "\\u{1b}]0;title\\u{7}");
    }

    #[test]
    fn json_means_the_same_as_before() {
        let value = serde_json::json!({"a\u{202e}": "b\u{7f}\u{9b}\u{2029}\n\u{1b}é\u{1f600}"});
        for text in [value.to_string(), serde_json::to_string_pretty(&value).expect("it is JSON")] {
            let shown = escaped(&text, Form::Json);
            assert!(!shown.contains(|one| is_deceptive(one) && one != '\n'), "{shown:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("it is JSON"), value);
        }
    }

    #[test]
    fn plain_text_is_not_copied() {
        let line = b"{\"ts\":1.5,\"id\":\"a\"}\n";
        assert!(matches!(escape(line, Form::Json), Cow::Borrowed(_)));
        assert_eq!(&*escape(b"\xffa\x9b\n", Form::Line), b"\\xffa\\x9b\n");
    }
}
