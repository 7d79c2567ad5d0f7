//! The metrics that a plugin has recorded, with the checks that a host makes.

use crate::Error;
use std::collections::BTreeMap;

const NAMES_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 64;
const HELP_BYTES_MAX: usize = 256;
const LABELS_MAX: usize = 8;
const BUCKETS_MAX: usize = 32;
const SERIES_MAX: usize = 1000;
const VALUE_BYTES_MAX: usize = 128;
/// The host adds these suffixes and labels itself.
const SUFFIXES: [&str; 4] = ["_total", "_bucket", "_sum", "_count"];
const OWN_LABELS: [&str; 2] = ["plugin", "le"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Definition {
    pub kind: MetricKind,
    pub help: String,
    pub labels: Vec<String>,
    pub buckets: Vec<f64>,
}

pub(crate) enum Change {
    Add(f64),
    Set(f64),
    Observe(f64),
}

struct Family {
    definition: Definition,
    series: BTreeMap<Vec<String>, Series>,
}

#[derive(Default)]
struct Series {
    value: f64,
    observations: Vec<f64>,
}

#[derive(Default)]
pub(crate) struct Metrics {
    events: BTreeMap<String, u64>,
    values: BTreeMap<String, f64>,
    families: BTreeMap<String, Family>,
}

impl Metrics {
    pub fn count(&mut self, name: &str, by: u64) {
        self.check_name(name);
        *self.events.entry(name.into()).or_default() += by;
    }

    pub fn set(&mut self, name: &str, value: f64) {
        self.check_name(name);
        self.values.insert(name.into(), value);
    }

    /// Panics where a host traps.
    fn check_name(&self, name: &str) {
        let is_good = (1..=NAME_BYTES_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        assert!(is_good, "metric {name:?}: a name has 1 to 64 letters, digits and '_'");
        let is_known = self.events.contains_key(name) || self.values.contains_key(name);
        let count = self.events.len() + self.values.len();
        assert!(is_known || count < NAMES_MAX, "metric \"{name}\": a plugin has at most 64 names of metrics");
    }

    pub fn event(&self, name: &str) -> u64 {
        self.events.get(name).copied().unwrap_or_default()
    }

    pub fn value(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied()
    }

    /// Returns the value of a counter or gauge.
    pub fn series_value(&self, name: &str, values: &[&str]) -> Option<f64> {
        Some(self.series(name, values)?.value)
    }

    pub fn observations(&self, name: &str, values: &[&str]) -> Vec<f64> {
        self.series(name, values).map_or_else(Vec::new, |series| series.observations.clone())
    }

    fn series(&self, name: &str, values: &[&str]) -> Option<&Series> {
        let values: Vec<String> = values.iter().map(|&value| value.into()).collect();
        self.families.get(name)?.series.get(&values)
    }

    pub fn define(&mut self, name: &str, definition: Definition) -> Result<(), Error> {
        if let Some(family) = self.families.get(name) {
            if family.definition == definition {
                return Ok(());
            }
            let (known, new) = (&family.definition, &definition);
            return Err(Error::failed(format!(
                "metric \"{name}\" is {known:?} already, and cannot be {new:?}"
            )));
        }
        check(name, &definition)?;
        if self.families.len() >= NAMES_MAX {
            return Err(Error::too_large(format!(
                "metric \"{name}\": the plugin already has {NAMES_MAX} metrics, the maximum"
            )));
        }
        self.families.insert(name.into(), Family { definition, series: BTreeMap::new() });
        Ok(())
    }

    pub fn change(&mut self, name: &str, values: &[String], change: Change) -> Result<(), Error> {
        let what = format!("metric \"{name}\"");
        let (Change::Add(number) | Change::Set(number) | Change::Observe(number)) = change;
        if !number.is_finite() {
            return Err(Error::failed(format!("{what}: {number} is not a finite number")));
        }
        let series: usize = self.families.values().map(|family| family.series.len()).sum();
        let family = self.families.get_mut(name).expect("invariant: `create` has defined it");
        let Definition { kind, labels, .. } = &family.definition;
        if values.len() != labels.len() {
            let (wanted, given, labels) = (labels.len(), values.len(), labels.join(", "));
            return Err(Error::failed(format!("{what} has {wanted} labels ({labels}), not {given}")));
        }
        if let Some(value) = values.iter().find(|value| value.len() > VALUE_BYTES_MAX) {
            let length = value.len();
            return Err(Error::too_large(format!(
                "{what}: the value of a label has {length} bytes; at most {VALUE_BYTES_MAX} are allowed"
            )));
        }
        if *kind == MetricKind::Counter && number < 0.0 {
            return Err(Error::failed(format!("{what}: a counter only grows, but {number} was added")));
        }
        if series >= SERIES_MAX && !family.series.contains_key(values) {
            return Err(Error::too_large(format!("{what}: the plugin already has {SERIES_MAX} time series")));
        }
        let series = family.series.entry(values.to_vec()).or_default();
        match change {
            Change::Add(by) => series.value += by,
            Change::Set(value) => series.value = value,
            Change::Observe(value) => series.observations.push(value),
        }
        Ok(())
    }
}

fn check(name: &str, definition: &Definition) -> Result<(), Error> {
    let Definition { kind, help, labels, buckets } = definition;
    let wrong = |reason: String| Err(Error::failed(format!("metric {name:?}: {reason}")));
    let too_large = |reason: String| Err(Error::too_large(format!("metric {name:?}: {reason}")));
    if !is_name(name) {
        return wrong(format!(
            "a name has 1 to {NAME_BYTES_MAX} letters, digits and '_', and does not begin with a digit"
        ));
    }
    if let Some(suffix) = SUFFIXES.iter().find(|suffix| name.ends_with(**suffix)) {
        return wrong(format!("\"{suffix}\" is added by the host; leave it out"));
    }
    if help.trim().is_empty() || help.len() > HELP_BYTES_MAX {
        return wrong(format!("its help has {} bytes; it must have 1 to {HELP_BYTES_MAX}", help.len()));
    }
    if labels.len() > LABELS_MAX {
        return too_large(format!("{} labels; at most {LABELS_MAX} are allowed", labels.len()));
    }
    for (index, label) in labels.iter().enumerate() {
        if !is_name(label) || label.starts_with("__") {
            return wrong(format!("{label:?} is not a label name"));
        }
        if OWN_LABELS.contains(&label.as_str()) {
            return wrong(format!("the label {label:?} is reserved for the host"));
        }
        if labels[..index].contains(label) {
            return wrong(format!("the label {label:?} is given twice"));
        }
    }
    if *kind == MetricKind::Histogram {
        if buckets.len() > BUCKETS_MAX {
            return too_large(format!("{} buckets; at most {BUCKETS_MAX} are allowed", buckets.len()));
        }
        let is_rising = buckets.windows(2).all(|pair| pair[0] < pair[1]);
        if buckets.is_empty() || !is_rising || !buckets.iter().all(|bound| bound.is_finite()) {
            return wrong(format!("buckets must be 1 to {BUCKETS_MAX} finite, increasing numbers"));
        }
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(is_good)
        && !name.as_bytes()[0].is_ascii_digit()
}
