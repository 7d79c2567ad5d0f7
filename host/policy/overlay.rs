//! Changes that model control makes to a manifest: unloaded models, and overridden keys of others.
//!
//! Models with `load = "on-request"` are in the manifest and are not served until a client loads
//! them. An overlay applies until the next reload by an operator. It is part of the policy that was
//! made under it, so that a rollback restores both, and it is never written to a file. Only numbers
//! of a model can be overridden: which code runs is decided by the manifest alone.

use super::manifest::{self, Manifest, Spanned};
use super::model_name::parse_model_name;
use crate::error::{Error, Result, did_you_mean};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Overlay {
    /// Unloaded models, with their versions in the manifest.
    pub unloaded: BTreeMap<String, BTreeSet<String>>,
    /// The overrides with which a model was loaded. They apply to all its versions.
    pub overrides: BTreeMap<String, Overrides>,
    /// Models that the manifest serves on request, and that a client has loaded.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub loaded: BTreeSet<String>,
    /// Models that the manifest serves on request, and that no client has loaded, with their
    /// versions. Follows from the manifest and from `loaded`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub on_request: BTreeMap<String, BTreeSet<String>>,
}

/// Keys of `[models]` that replace those of the manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Overrides {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_batch_size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_queue_delay_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl Overlay {
    /// Serves the model as the manifest says, except for these keys.
    pub fn load(&mut self, model: &str, overrides: Overrides) {
        self.unloaded.remove(model);
        // Of no meaning for a model that is served anyway; `apply` removes it then.
        self.loaded.insert(model.to_owned());
        if overrides == Overrides::default() {
            self.overrides.remove(model);
        } else {
            self.overrides.insert(model.to_owned(), overrides);
        }
    }

    /// Stops serving the model, and forgets its overrides. The overlay must be one that was
    /// applied.
    pub fn unload(&mut self, model: &str, versions: BTreeSet<String>) {
        self.overrides.remove(model);
        let not_served = match self.loaded.remove(model) {
            true => &mut self.on_request,
            false => &mut self.unloaded,
        };
        not_served.insert(model.to_owned(), versions);
    }

    /// Whether it changes nothing that the manifest says.
    pub fn is_empty(&self) -> bool {
        let Overlay { unloaded, overrides, loaded, on_request: _ } = self;
        unloaded.is_empty() && overrides.is_empty() && loaded.is_empty()
    }

    /// Returns the models of the manifest that are not served, with their versions.
    pub fn not_served(&self) -> impl Iterator<Item = (&String, &BTreeSet<String>)> {
        self.unloaded.iter().chain(&self.on_request)
    }

    /// Whether the manifest has this model and it is not served.
    pub fn holds_back(&self, model: &str) -> bool {
        self.unloaded.contains_key(model) || self.on_request.contains_key(model)
    }

    /// Changes a manifest, and returns the part of the overlay that applied. Models that are no
    /// longer in the manifest are left out.
    pub(super) fn apply(&self, manifest: &mut Manifest) -> Overlay {
        let Overlay { unloaded, overrides, loaded, on_request: _ } = self;
        let mut applied = Overlay::default();
        let model_of = |key: &Spanned<String>| parse_model_name(key.get_ref());
        let on_request = on_request(manifest);
        manifest.models.retain(|key, table| {
            let Some(name) = model_of(key) else { return true };
            if let Some(overrides) = overrides.get(&*name.name) {
                overrides.apply(table, key);
                applied.overrides.insert(name.name.to_string(), overrides.clone());
            }
            let is_loaded = loaded.contains(&*name.name);
            let not_served = if unloaded.contains_key(&*name.name) {
                &mut applied.unloaded
            } else if on_request.contains(&*name.name) && !is_loaded {
                &mut applied.on_request
            } else {
                if is_loaded && on_request.contains(&*name.name) {
                    applied.loaded.insert(name.name.to_string());
                }
                return true;
            };
            not_served.entry(name.name.to_string()).or_default().insert(name.version.to_string());
            false
        });
        let is_served = |name: &str| !applied.holds_back(name);
        manifest.policy.retain(|key, _| model_of(key).is_none_or(|name| is_served(&name.name)));
        manifest.routing.retain(|key, _| is_served(key.get_ref()));
        applied
    }
}

/// Returns the models whose versions are all served on request. A manifest that does not allow
/// clients to load models has none; the planner reports its keys.
fn on_request(manifest: &Manifest) -> BTreeSet<Arc<str>> {
    if !manifest.server.is_explicit() {
        return BTreeSet::new();
    }
    let (mut found, mut others) = (BTreeSet::new(), BTreeSet::new());
    for (key, table) in &manifest.models {
        let Some(name) = parse_model_name(key.get_ref()) else { continue };
        let waits = table.load.as_ref().is_some_and(|load| load.get_ref() == ON_REQUEST);
        if waits { &mut found } else { &mut others }.insert(name.name);
    }
    found.retain(|name| !others.contains(name));
    found
}

/// The value of `load` for models that wait for a client.
pub(super) const ON_REQUEST: &str = "on-request";

/// Triton's name of the table that holds `max_queue_delay_microseconds`.
const DYNAMIC_BATCHING: &str = "dynamic_batching";

impl Overrides {
    const KEYS: [&str; 3] = ["max_batch_size", "max_queue_delay_us", "timeout_ms"];

    /// Keys of `[models]` that a request must not set.
    const REFUSED: [&str; 7] = ["path", "plugin", "remote", "sha256", "data_sha256", "transformer", "checks"];

    /// Whether a key can be overridden.
    pub fn takes(key: &str) -> bool {
        key == DYNAMIC_BATCHING || Self::KEYS.contains(&key)
    }

    /// Reads the fields of a model's configuration, under Triton's names or those of the manifest.
    pub fn from_config(fields: &Map<String, Value>) -> Result<Self> {
        let mut overrides = Overrides::default();
        for (key, value) in fields {
            match key.as_str() {
                // Triton writes 0 for a model that runs one call at a time.
                "max_batch_size" => {
                    overrides.max_batch_size = Some(number(key, value)?.max(1) as usize);
                }
                "max_queue_delay_us" => overrides.max_queue_delay_us = Some(number(key, value)?),
                "timeout_ms" => overrides.timeout_ms = Some(number(key, value)?),
                DYNAMIC_BATCHING => overrides.dynamic_batching(value)?,
                refused if Self::REFUSED.contains(&refused) => {
                    let message =
                        format!("the key \"{refused}\" says which code runs: only the manifest can set it");
                    return Err(Error::invalid(message).field(refused));
                }
                unknown => return Err(Self::unknown(unknown)),
            }
        }
        Ok(overrides)
    }

    fn dynamic_batching(&mut self, value: &Value) -> Result<()> {
        let fields = value.as_object().ok_or_else(|| {
            let message = format!("the key \"{DYNAMIC_BATCHING}\" must be an object");
            Error::invalid(message).field(DYNAMIC_BATCHING)
        })?;
        for (key, value) in fields {
            match key.as_str() {
                "max_queue_delay_microseconds" => self.max_queue_delay_us = Some(number(key, value)?),
                unknown => return Err(Self::unknown(&format!("{DYNAMIC_BATCHING}.{unknown}"))),
            }
        }
        Ok(())
    }

    fn unknown(key: &str) -> Error {
        let shown: String = key.chars().take(80).collect();
        let hint = did_you_mean(&shown, Self::KEYS);
        let known = Self::KEYS.join(", ");
        let message = format!(
            "the key \"{shown}\" has no counterpart in the manifest that could be overridden{hint}; those that \
             have: {known}, {DYNAMIC_BATCHING}.max_queue_delay_microseconds"
        );
        Error::invalid(message).field(shown)
    }

    fn apply(&self, table: &mut manifest::Model, key: &Spanned<String>) {
        let Overrides { max_batch_size, max_queue_delay_us, timeout_ms } = self;
        // A fault of an override is shown at the model, because the override is in no file.
        let here = || key.span();
        if let Some(size) = *max_batch_size {
            table.max_batch_size = Some(Spanned::new(here(), size));
            // A delay in the manifest means nothing for a model that runs one call at a time.
            table.max_queue_delay_us.take_if(|_| size == 1);
        }
        if let Some(delay) = *max_queue_delay_us {
            table.max_queue_delay_us = Some(Spanned::new(here(), delay));
        }
        if let Some(timeout) = *timeout_ms {
            table.timeout_ms = Some(Spanned::new(here(), timeout));
        }
    }
}

/// Reads a whole number. The protocol's JSON has numbers and texts that are numbers.
fn number(key: &str, value: &Value) -> Result<u64> {
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    number.ok_or_else(|| {
        let shown: String = value.to_string().chars().take(80).collect();
        Error::invalid(format!("the key \"{key}\" is {shown}; it must be a whole number from 0")).field(key)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn keys_are_those_of_triton_and_of_the_manifest() {
        let parse = |text: &str| Overrides::from_config(&serde_json::from_str(text).unwrap());
        let read = |text: &str| {
            let Overrides { max_batch_size, max_queue_delay_us, timeout_ms } = parse(text).unwrap();
            (max_batch_size, max_queue_delay_us, timeout_ms)
        };
        assert_eq!(read(r#"{"max_batch_size": "16"}"#), (Some(16), None, None));
        assert_eq!(read(r#"{"max_batch_size": 0, "timeout_ms": 5}"#), (Some(1), None, Some(5)));
        let delay = r#"{"dynamic_batching": {"max_queue_delay_microseconds": "100"}}"#;
        assert_eq!(read(delay), (None, Some(100), None));
        assert_eq!(read(r#"{"dynamic_batching": {}}"#), (None, None, None));
        for (text, expected) in [
            (r#"{"max_batch_sise": 1}"#, "did you mean \"max_batch_size\"?"),
            (r#"{"dynamic_batching": {"preserve_ordering": true}}"#, "dynamic_batching.preserve_ordering"),
            (r#"{"dynamic_batching": 3}"#, "must be an object"),
            (r#"{"path": "/etc/passwd"}"#, "only the manifest can set it"),
            (r#"{"max_batch_size": -1}"#, "must be a whole number"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn an_overlay_forgets_what_the_manifest_has_no_more() {
        let text = "[models.\"a:1\"]\npath = \"a.onnx\"\n[models.\"a:2\"]\npath = \"a.onnx\"\n[models.b]\n\
            path = \"b.onnx\"\n[policy]\n\"a:2\" = \"cpu\"\nb = \"cpu\"\n[routing.a]\nweights = { 1 = 1 }\n";
        let mut manifest =
            Manifest::parse(Path::new("hostler.toml"), text).unwrap_or_else(|faults| panic!("{faults}"));
        let mut overlay = Overlay::default();
        let size = |size| Overrides { max_batch_size: Some(size), ..Overrides::default() };
        overlay.load("b", size(4));
        overlay.load("gone", size(4));
        overlay.overrides.insert("a".into(), size(2));
        overlay.unload("a", BTreeSet::new());
        let applied = overlay.apply(&mut manifest);
        let names = |keys: &BTreeMap<Spanned<String>, _>| -> Vec<String> {
            keys.keys().map(|key| key.get_ref().clone()).collect()
        };
        assert_eq!(names(&manifest.models), ["b"]);
        assert_eq!((manifest.policy.len(), manifest.routing.len()), (1, 0));
        assert_eq!(applied.unloaded["a"].iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(applied.overrides.keys().collect::<Vec<_>>(), ["b"]);
    }
}
