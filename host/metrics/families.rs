//! Metrics that plugins define themselves: counters, gauges and histograms with labels, limited in
//! number.
//!
//! The values are kept by the plugin's name, so they outlive instances and swaps, for as long as a
//! generation exists that has defined them. The definitions belong to a generation of the plugin: a
//! new generation may define a name differently, and then starts from zero.

use super::definition::{Definition, Noted, Refusal, wrong};
use super::family::{Change, Family, SERIES_MAX};
use crate::lock::LockUnpoisoned;
use prometheus::proto::MetricFamily;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

/// Metric names of one plugin.
const NAMES_MAX: usize = 64;

/// The metrics of the plugin of one name, over all of its generations.
#[derive(Default)]
struct RegisteredFamilies {
    families: Mutex<BTreeMap<String, Arc<Family>>>,
}

impl RegisteredFamilies {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Family>>> {
        self.families.lock_unpoisoned()
    }
}

/// The plugins that have their own metrics, by name, while a generation of them exists.
#[derive(Default)]
pub(super) struct Plugins(Mutex<HashMap<Arc<str>, Weak<RegisteredFamilies>>>);

impl Plugins {
    pub fn families(&self, plugin: &Arc<str>) -> Families {
        let mut all = self.0.lock_unpoisoned();
        all.retain(|_, kept| kept.strong_count() > 0);
        let kept = all.get(plugin).and_then(Weak::upgrade).unwrap_or_else(|| {
            let kept = Arc::<RegisteredFamilies>::default();
            all.insert(Arc::clone(plugin), Arc::downgrade(&kept));
            kept
        });
        Families { plugin: Arc::clone(plugin), kept, defined: Mutex::default() }
    }
}

/// The metrics that one generation of a plugin has defined.
pub struct Families {
    plugin: Arc<str>,
    kept: Arc<RegisteredFamilies>,
    defined: Mutex<HashMap<String, Arc<Family>>>,
}

impl Families {
    /// Returns the metric of this name. It is the same one each time, and continues an earlier
    /// generation's metric if both have the same definition.
    pub fn define(&self, name: &str, definition: Definition) -> Noted<Arc<Family>> {
        let mut defined = self.defined.lock_unpoisoned();
        if let Some(family) = defined.get(name) {
            if *family.definition() == definition {
                return Ok(Arc::clone(family));
            }
            let (known, new) = (family.definition().described(), definition.described());
            return wrong(format!("metric \"{name}\" is {known} already, and cannot be {new}"));
        }
        definition.check(name)?;
        if defined.len() >= NAMES_MAX {
            return Err(Refusal::TooMuch(format!(
                "metric \"{name}\": the plugin already has {NAMES_MAX} metrics, the maximum"
            )));
        }
        let mut kept = self.kept.lock();
        let family = match kept.get(name).filter(|family| *family.definition() == definition) {
            Some(family) => Arc::clone(family),
            None => {
                // Metrics that no generation uses are removed to make room.
                let series: usize = kept.values().map(|family| family.len()).sum();
                if kept.len() >= NAMES_MAX || series >= SERIES_MAX {
                    kept.retain(|_, family| Arc::strong_count(family) > 1);
                }
                let family = Family::new(&self.plugin, name, definition);
                let family = family.map_err(|error| Refusal::Wrong(format!("metric \"{name}\": {error}")))?;
                let family = Arc::new(family);
                kept.insert(name.to_owned(), Arc::clone(&family));
                family
            }
        };
        defined.insert(name.to_owned(), Arc::clone(&family));
        Ok(family)
    }

    /// Changes a metric's value in the series with these label values, in the order of the labels.
    pub fn change(&self, family: &Family, values: Vec<String>, change: Change) -> Noted<()> {
        family.change(values, change, || {
            let defined = self.defined.lock_unpoisoned();
            defined.values().map(|family| family.len()).sum::<usize>() < SERIES_MAX
        })
    }

    pub fn plugin(&self) -> &Arc<str> {
        &self.plugin
    }

    /// Returns the metrics to show, with this generation's definitions. Includes earlier metrics
    /// that it has not defined yet.
    pub(super) fn shown(&self) -> BTreeMap<String, Arc<Family>> {
        let mut shown = self.kept.lock().clone();
        let defined = self.defined.lock_unpoisoned();
        shown.extend(defined.iter().map(|(name, family)| (name.clone(), Arc::clone(family))));
        shown
    }
}

impl Drop for Families {
    /// Removes the metrics that only this generation has defined.
    fn drop(&mut self) {
        self.defined.lock_unpoisoned().clear();
        self.kept.lock().retain(|_, family| Arc::strong_count(family) > 1);
    }
}

/// Collects the metrics of plugins. If two generations of a plugin disagree, the first one is used.
pub(super) fn collect<'a>(plugins: impl Iterator<Item = &'a Families>) -> Vec<MetricFamily> {
    let mut seen: BTreeMap<(Arc<str>, String), Arc<Family>> = BTreeMap::new();
    for families in plugins {
        for (name, family) in families.shown() {
            seen.entry((Arc::clone(&families.plugin), name)).or_insert(family);
        }
    }
    let mut merged: BTreeMap<String, MetricFamily> = BTreeMap::new();
    for mut family in seen.values().flat_map(|family| family.collect()) {
        if family.get_metric().is_empty() {
            continue;
        }
        match merged.get_mut(family.name()) {
            Some(known) => known.mut_metric().extend(family.take_metric()),
            None => drop(merged.insert(family.name().to_owned(), family)),
        }
    }
    merged.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::super::definition::FamilyKind;
    use super::*;

    fn definition(kind: FamilyKind, labels: &[&str]) -> Definition {
        let buckets = if kind == FamilyKind::Histogram { vec![0.1, 1.0] } else { Vec::new() };
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        Definition { kind, help: "What it is.".into(), labels, buckets }
    }

    fn texts(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    #[test]
    fn definitions_are_held_to_what_prometheus_allows() {
        let families = Plugins::default().families(&"p".into());
        let refused = |name: &str, definition: Definition| families.define(name, definition).err().unwrap();
        let counter = |labels: &[&str]| definition(FamilyKind::Counter, labels);
        for name in ["", "1a", "a b", "a\n# HELP", "é", "x_total", "x_bucket", &"n".repeat(65)] {
            assert!(matches!(refused(name, counter(&[])), Refusal::Wrong(_)), "{name}");
        }
        for labels in [&["plugin"][..], &["le"], &["__x"], &["a", "a"], &["a-b"]] {
            assert!(matches!(refused("x", counter(labels)), Refusal::Wrong(_)), "{labels:?}");
        }
        assert!(matches!(
            refused("x", counter(&["a", "b", "c", "d", "e", "f", "g", "h", "i"])),
            Refusal::TooMuch(_)
        ));
        for buckets in [vec![], vec![1.0, 1.0], vec![2.0, 1.0], vec![f64::NAN], vec![f64::INFINITY]] {
            let histogram = Definition { buckets, ..definition(FamilyKind::Histogram, &[]) };
            assert!(matches!(refused("x", histogram), Refusal::Wrong(_)));
        }
        let buckets = (0..33).map(f64::from).collect();
        let wide = Definition { buckets, ..definition(FamilyKind::Histogram, &[]) };
        assert!(matches!(refused("x", wide), Refusal::TooMuch(_)));
    }

    #[test]
    fn names_and_series_are_bounded_and_what_is_dropped_makes_room() {
        let plugins = Plugins::default();
        let old = plugins.families(&"p".into());
        let family = old.define("x", definition(FamilyKind::Gauge, &["n"])).unwrap();
        for n in 0..SERIES_MAX {
            old.change(&family, vec![n.to_string()], Change::Set(1.0)).unwrap();
        }
        let refused = old.change(&family, texts(&["one more"]), Change::Set(1.0)).unwrap_err();
        assert!(matches!(refused, Refusal::TooMuch(_)));
        old.change(&family, texts(&["7"]), Change::Add(1.0)).unwrap();
        for n in 1..NAMES_MAX {
            old.define(&format!("x{n}"), definition(FamilyKind::Gauge, &[])).unwrap();
        }
        assert!(matches!(
            old.define("more", definition(FamilyKind::Gauge, &[])).err().unwrap(),
            Refusal::TooMuch(_)
        ));
        // The next generation has as many other names; the old names go with the old generation.
        let new = plugins.families(&"p".into());
        let define = |name: &str| {
            let more = new.define(name, definition(FamilyKind::Gauge, &[])).unwrap();
            new.change(&more, Vec::new(), Change::Set(1.0)).unwrap();
        };
        define("more");
        assert_eq!(new.shown().len(), NAMES_MAX + 1);
        drop((family, old));
        define("most");
        assert_eq!(new.shown().into_keys().collect::<Vec<_>>(), ["more", "most"]);
    }

    #[test]
    fn generations_share_what_they_define_alike_and_the_first_counts_where_they_differ() {
        let plugins = Plugins::default();
        let (old, new) = (plugins.families(&"p".into()), plugins.families(&"p".into()));
        let count = |families: &Families, definition: Definition| {
            let family = families.define("x", definition).unwrap();
            families.change(&family, Vec::new(), Change::Add(1.0)).unwrap();
        };
        count(&old, definition(FamilyKind::Counter, &[]));
        count(&new, definition(FamilyKind::Counter, &[]));
        let values = |families: &[&Families]| -> Vec<(String, f64)> {
            let all = collect(families.iter().copied());
            all.iter()
                .map(|family| (family.name().to_owned(), family.get_metric()[0].get_counter().get_value()))
                .collect()
        };
        assert_eq!(values(&[&new]), [("hostler_plugin_counter_x_total".to_owned(), 2.0)]);
        let newest = plugins.families(&"p".into());
        let other = Definition { help: "Something else.".into(), ..definition(FamilyKind::Counter, &[]) };
        count(&newest, other);
        assert_eq!(values(&[&newest])[0].1, 1.0);
        assert_eq!(values(&[&old, &newest])[0].1, 2.0);
    }
}
