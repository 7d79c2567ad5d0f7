//! Explains faults of form in a manifest, in terms of TOML and of the manifest's keys.

use crate::error::nearest;
use crate::policy::diagnostic::Diagnostic;
use crate::policy::secret;
use std::ops::Range;

/// Turns an error of TOML or serde into a diagnostic with a hint.
pub(super) fn explain(error: &toml::de::Error, text: &str) -> Diagnostic {
    let message = error.message();
    let mut fault = Diagnostic::new(in_plain_words(message));
    fault.span = error.span();
    let line = fault.span.as_ref().map_or("", |span| line_at(text, span.start));
    if let Some(unknown) = quoted(message, "unknown field `") {
        fault.message = format!("unknown key \"{unknown}\"");
        let known: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
        fault.hint = Some(match meant(unknown, &known) {
            _ if known.contains(&"on_error") && OF_PIPELINES.contains(&unknown) => {
                format!("\"{unknown}\" belongs to [pipelines.NAME]; write it above the first table of a step")
            }
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => format!("known here: {}", known.join(", ")),
        });
    } else if let Some(missing) = quoted(message, "missing field `") {
        fault.message = format!("the key \"{missing}\" is missing");
    } else if fault.span.as_ref().is_some_and(|span| is_secret(text, span)) {
        fault.message = secret::without_quoted(&fault.message);
    } else if message.starts_with("unexpected key or value") && is_condition(line) {
        fault.hint =
            Some("write a condition that has texts in single quotes: 'params.mode == \"strict\"'".into());
    } else if message.starts_with("invalid float") {
        fault.hint = Some("put a text in quotes".into());
    } else if let Some(key) = fault.span.clone().and_then(|span| unquoted_colon(text, span.start)) {
        fault.message = format!("the key {key} has a colon and no quotes");
        fault.hint = Some(format!("write \"{key}\""));
    }
    fault
}

/// Keys of a pipeline, which do not belong in the table of a step.
const OF_PIPELINES: [&str; 8] =
    ["inputs", "outputs", "rows", "streaming", "max_visits", "max_mb", "parallel", "window"];

fn line_at(text: &str, at: usize) -> &str {
    let start = text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1);
    text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or("")
}

/// Whether a line of a manifest has the condition of a step.
fn is_condition(line: &str) -> bool {
    line.split(['{', ',']).any(|part| {
        let key = part.split('=').next().unwrap_or("").trim();
        matches!(key, "when" | "while")
    })
}

fn is_secret(text: &str, span: &Range<usize>) -> bool {
    secret::spans(text)
        .iter()
        .any(|hidden| span.start < hidden.end && hidden.start < span.end.max(span.start + 1))
}

/// Replaces Rust's names of types by those of TOML.
fn in_plain_words(message: &str) -> String {
    let types = [
        ("expected usize", "expected a whole number"),
        ("expected u64", "expected a whole number"),
        ("expected u32", "expected a whole number"),
        ("expected f64", "expected a number"),
        ("expected struct", "expected a table, as"),
    ];
    let plain =
        types.iter().fold(message.trim_end().to_owned(), |text, (ours, plain)| text.replace(ours, plain));
    plain.strip_prefix("invalid type: ").map_or(plain.clone(), |rest| format!("wrong type: {rest}"))
}

fn quoted<'a>(message: &'a str, before: &str) -> Option<&'a str> {
    message.strip_prefix(before)?.split('`').next()
}

/// Returns the key that was meant: one with another name in other servers, or one with a typing
/// error.
fn meant<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    const SYNONYMS: [(&str, &str); 18] = [
        ("max_workers", "workers"),
        ("threads", "workers"),
        ("count", "workers"),
        ("concurrency", "workers"),
        ("max_queue", "queue"),
        ("queue_size", "queue"),
        ("timeout", "timeout_ms"),
        ("timeout_s", "timeout_ms"),
        ("memory", "memory_mb"),
        ("file", "path"),
        ("wasm", "path"),
        ("backend", "kind"),
        ("type", "kind"),
        ("address", "url"),
        ("endpoint", "url"),
        ("digest", "sha256"),
        ("batch_size", "max_batch_size"),
        ("max_queue_delay_microseconds", "max_queue_delay_us"),
    ];
    let synonym = SYNONYMS.iter().find(|(other, _)| *other == unknown).map(|(_, ours)| *ours);
    known
        .iter()
        .find(|name| Some(**name) == synonym)
        .copied()
        .or_else(|| nearest(unknown, known.iter().copied()))
}

/// Returns the bare key around `byte` if it has a colon, such as `echo:v1`.
fn unquoted_colon(text: &str, byte: usize) -> Option<&str> {
    let byte = text.floor_char_boundary(byte);
    let start = text[..byte].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[start..].lines().next()?;
    let key = line.split('=').next()?.trim().trim_matches(['[', ']']);
    let key =
        key.rsplit_once('.').filter(|(table, _)| !table.contains(':')).map_or(key, |(_, last)| last).trim();
    let bare = !key.contains(['"', '\'', ' ']) && key.contains(':');
    bare.then_some(key)
}
