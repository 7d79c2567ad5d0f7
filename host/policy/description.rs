//! A plan as text: what it consists of, and the lines that say how two plans differ.

use std::collections::{BTreeMap, BTreeSet};

/// From a thing to its attributes and their values: `model "a:1"` to `executor` to `onnx`.
pub type Description = BTreeMap<String, BTreeMap<String, String>>;

/// The prefix of keys of a plugin's config. A description has only digests of their values, and a
/// change shows not even those.
pub(super) const CONFIG: &str = "config.";

/// The same for the secrets of webhooks.
const SECRETS: &str = "webhooks.secrets";

/// Returns one line for each change from `old` to `new`. No lines mean no change.
pub fn diff(old: &Description, new: &Description) -> Vec<String> {
    let mut lines = Vec::new();
    for (thing, before) in old {
        match new.get(thing) {
            None => lines.push(format!("{thing}: removed")),
            Some(after) => lines.extend(attributes(thing, before, after)),
        }
    }
    let added = new.keys().filter(|thing| !old.contains_key(*thing));
    lines.extend(added.map(|thing| format!("{thing}: added")));
    lines
}

fn attributes(
    thing: &str,
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Vec<String> {
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let line = |key: &String| {
        let (old, new) = (before.get(key), after.get(key));
        if key.starts_with(CONFIG) || key == SECRETS {
            let change = match (old, new) {
                (None, _) => "added",
                (_, None) => "removed",
                _ => "changed",
            };
            return (old != new).then(|| format!("{thing}: {key} {change}"));
        }
        let show = |value: Option<&String>| value.map_or_else(|| "none".to_owned(), |value| short(value));
        (old != new).then(|| format!("{thing}: {key} {} -> {}", show(old), show(new)))
    };
    keys.into_iter().filter_map(line).collect()
}

/// Shortens a digest to its first twelve digits.
fn short(value: &str) -> String {
    let is_digest = value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest { value[..12].to_owned() } else { value.to_owned() }
}
