//! The tokens of a condition.

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    Name(&'a str),
    Int(i128),
    Float(f64),
    Text(String),
    Sign(&'static str),
    End,
}

/// Longer signs come first, so that `<=` is not read as `<`.
const SIGNS: [&str; 21] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "+", "-", "*", "/", "%", "(", ")", "[", "]", ".", ",",
    "?",
];

/// Returns the first token of a text, and its length.
pub(super) fn read(text: &str) -> Result<(Token<'_>, usize), String> {
    let Some(first) = text.chars().next() else { return Ok((Token::End, 0)) };
    if first.is_ascii_alphabetic() || first == '_' {
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
        return Ok((Token::Name(&text[..end]), end));
    }
    if first.is_ascii_digit() {
        return number(text);
    }
    if matches!(first, '"' | '\'') {
        return string(text, first);
    }
    match SIGNS.iter().find(|sign| text.starts_with(**sign)) {
        Some(sign) => Ok((Token::Sign(sign), sign.len())),
        None if text.starts_with('=') => Err("\"=\" is not an operator; write ==".to_owned()),
        None if text.starts_with('&') || text.starts_with('|') => Err("write && or ||".to_owned()),
        None => Err(format!("unexpected character {first:?}")),
    }
}

fn number(text: &str) -> Result<(Token<'_>, usize), String> {
    let digits = |from: usize| {
        let rest = &text[from..];
        from + rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())
    };
    let whole = digits(0);
    let mut end = whole;
    if text[end..].starts_with('.') && text[end + 1..].starts_with(|c: char| c.is_ascii_digit()) {
        end = digits(end + 1);
    }
    if text[end..].starts_with(['e', 'E']) {
        let sign = usize::from(text[end + 1..].starts_with(['+', '-']));
        let exponent = digits(end + 1 + sign);
        if exponent > end + 1 + sign {
            end = exponent;
        }
    }
    if text[end..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
        return Err("a number ends in a letter".to_owned());
    }
    let written = &text[..end];
    if end == whole {
        let value: Option<i128> = written.parse().ok().filter(|value| *value <= i128::from(u64::MAX));
        return value
            .map(|value| (Token::Int(value), end))
            .ok_or_else(|| format!("a whole number is over {}", u64::MAX));
    }
    match written.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok((Token::Float(value), end)),
        _ => Err("a number is too large for FP64".to_owned()),
    }
}

fn string(text: &str, quote: char) -> Result<(Token<'_>, usize), String> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            _ if c == quote => return Ok((Token::Text(value), at + c.len_utf8())),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, escaped @ ('\\' | '"' | '\''))) => value.push(escaped),
                _ => return Err("unknown escape; the escapes are \\\\ \\\" \\' \\n \\t".to_owned()),
            },
            _ => value.push(c),
        }
    }
    Err("a text has no closing quote".to_owned())
}
