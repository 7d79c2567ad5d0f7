//! Values of `[plugins.<name>.config]`, which may be keys and passwords, and secrets of webhooks
//! that were written into the manifest by mistake.
//!
//! The host shows their names and digests, never the values.

use super::files::hex_digest;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, Range};

/// What is shown instead of a value.
pub(super) const HIDDEN: &str = "<hidden>";

/// Digits of a shown digest. They are enough to tell values apart.
pub(super) const DIGITS: usize = 16;

/// The strings that the manifest passes to a plugin. `Debug` shows only their keys.
#[derive(Clone, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(transparent)]
pub struct PluginConfig(BTreeMap<String, String>);

impl Deref for PluginConfig {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl fmt::Debug for PluginConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.keys().map(|key| (key, HIDDEN))).finish()
    }
}

impl PluginConfig {
    /// Returns each key with the digest of its value.
    ///
    /// The digest covers the names of plugin and key, so that equal values do not look equal. It
    /// has no other salt, because hosts and commands that read the same manifest must compute the
    /// same digest. A value that can be guessed can therefore be confirmed by its digest.
    pub(super) fn digests(&self, plugin: &str) -> impl Iterator<Item = (String, String)> {
        self.0.iter().map(move |(key, value)| {
            // The lengths separate the parts.
            let text = format!("config {} {plugin} {} {key} {value}", plugin.len(), key.len());
            (key.clone(), format!("digest:{}", &hex_digest(text.as_bytes())[..DIGITS]))
        })
    }
}

/// Returns the places of such values in the text of a manifest. The text may be malformed, so
/// anything that looks like a value counts as one.
pub(super) fn spans(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut table: Vec<&str> = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let line_end = text[at..].find('\n').map_or(text.len(), |length| at + length);
        let line = text[at..line_end].trim();
        let mut end = line_end;
        if let Some(header) = line.strip_prefix('[') {
            table = keys(header.split(']').next().unwrap_or_default().trim_start_matches('[')).collect();
        } else if line.starts_with('#') || line.is_empty() {
            // A value that was commented out is still secret.
            let is_secret = is_config(&table) || has_webhook_secret(line);
            found.extend(is_secret.then_some(at..line_end));
        } else {
            let equals = text[at..line_end].find('=').map(|place| at + place);
            let path: Vec<&str> = match equals {
                Some(equals) => table.iter().copied().chain(keys(&text[at..equals])).collect(),
                None => table.clone(),
            };
            let start = equals.map_or(at, |equals| equals + 1);
            end = value_end(text, start);
            // One plugin, or all of them, may be written as one value.
            let value = &text[start..end];
            let within = path.first() == Some(&"plugins") && path.len() < 3 && value.contains("config");
            let is_secret = within || is_config(&path) || is_stray(&path, value);
            found.extend((is_secret || has_webhook_secret(value)).then_some(start..end));
        }
        at = end + 1;
    }
    found
}

fn keys(path: &str) -> impl Iterator<Item = &str> {
    path.split('.').map(|key| key.trim().trim_matches(['"', '\'']))
}

fn is_config(path: &[&str]) -> bool {
    path.first() == Some(&"plugins") && path.iter().skip(2).any(|key| *key == "config")
}

/// Whether a value has a secret of webhooks, which belongs into a file.
pub(super) fn has_webhook_secret(value: &str) -> bool {
    value.contains("whsec_")
}

/// Whether this is a text under a key that plugins do not have, which was probably meant for their
/// config.
fn is_stray(path: &[&str], value: &str) -> bool {
    const TEXTS: [&str; 3] = ["path", "sha256", "instances"];
    let is_text = value.trim_start().starts_with(['"', '\'']);
    matches!(path, ["plugins", _, key] if is_text && !TEXTS.contains(key))
}

/// Returns the end of the line on which a value ends. Lists, tables and some strings span several
/// lines.
fn value_end(text: &str, start: usize) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (start, 0_usize);
    while at < bytes.len() {
        match bytes[at] {
            b'\n' if depth == 0 => return at,
            b'#' => at += text[at..].find('\n').map_or(text.len() - at, |length| length) - 1,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            quote @ (b'"' | b'\'') => at = string_end(text, at, quote),
            _ => {}
        }
        at += 1;
    }
    text.len()
}

/// Returns the last byte of a string, or of the line on which it should end.
fn string_end(text: &str, start: usize, quote: u8) -> usize {
    let bytes = text.as_bytes();
    let long = bytes[start..].starts_with(&[quote; 3]);
    let marks = if long { 3 } else { 1 };
    let mut at = start + marks;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quote == b'"' => at += 1,
            b'\n' if !long => return at - 1,
            byte if byte == quote && bytes[at..].starts_with(&[quote; 3][..marks]) => return at + marks - 1,
            _ => {}
        }
        at += 1;
    }
    bytes.len() - 1
}

/// Removes quoted parts from a message about a value.
pub(super) fn without_quoted(message: &str) -> String {
    let Some(quote) = message.find(['"', '`']) else { return message.to_owned() };
    let before = &message[..quote];
    if let Some(expected) = message.rfind(", expected ").filter(|place| *place > quote) {
        return format!("{}{}", before.trim_end(), &message[expected..]);
    }
    before
        .rsplit_once(',')
        .map_or_else(|| "this value cannot be read".to_owned(), |(fault, _)| fault.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_however_they_are_written() {
        for text in [
            "[plugins.a.config]\napi_key = \"SECRET\"\n",
            "[ plugins . \"a\" . config ]\napi_key = 'SECRET' # SECRET\n# old = \"SECRET\"\n",
            "[plugins.a]\nconfig.api_key = \"SECRET\"\n",
            "[plugins.a]\nconfig = { api_key = \"SECRET\" }\n",
            "[plugins.a]\npath = \"a\"\nconfig = \"SECRET\"\n",
            "[plugins]\na = { path = \"a.wasm\", config = { api_key = \"SECRET\" } }\n",
            "plugins.a.config.api_key = \"SECRET\"\n",
            "plugins = { a = { config = { k = \"SECRET\" } } }\n",
            "[plugins.a.config]\nkey = \"\"\"\nline\nSECRET = 1\n[SECRET]\n\"\"\"\n",
            "[plugins.a.config]\nkey = [\n\"SECRET\",\n  \"SECRET\"\n]\n",
            "[plugins.a.config]\nkey = SECRET\n",
            "[plugins.a.config]\nSECRET\n",
            "[plugins.a.config]\nkey = \"SECRET\nother = \"SECRET\n",
            "[plugins.a.config]\nkey = \"\"\"SECRET\n",
            "[plugins.a.config\nkey = \"SECRET\"",
            "[plugins.a]\npath = \"a\"\napi_key = \"SECRET\"\n",
            "[jobs.webhooks]\nsecrets = [\"whsec_SECRET\"]\n# secrets = [\"whsec_SECRET\"]\n",
            "[jobs]\nwebhooks = { secrets = [{ file = \"whsec_SECRET\" }] }\n",
            "[plugins.a.config.deeper]\nkey = \"\\\"SECRET\"",
        ] {
            let found = spans(text);
            for (place, _) in text.match_indices("SECRET") {
                assert!(found.iter().any(|span| span.contains(&place)), "{place} of {text}: {found:?}");
            }
        }
        let text = "[plugins.config]\npath = \"a\"\n[models.config]\nplugin = \"b\"\nconfig = 1\n";
        assert_eq!(spans(text), Vec::<Range<usize>>::new());
    }

    #[test]
    fn messages_lose_what_they_quote() {
        for (message, expected) in [
            ("wrong type: integer `1234`, expected a string", "wrong type: integer, expected a string"),
            ("wrong type: string \"a, expected b\", expected a map", "wrong type: string, expected a map"),
            ("unclosed string", "unclosed string"),
            ("missing escaped value, expected `b`, `f`", "missing escaped value"),
            ("bad `SECRET`", "this value cannot be read"),
        ] {
            assert_eq!(without_quoted(message), expected);
        }
    }
}
