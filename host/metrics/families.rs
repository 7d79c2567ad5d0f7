//! Metrics that plugins define themselves: counters, gauges and histograms with labels, bounded in number.
//!
//! What a plugin has counted is kept by its name, so it outlives instances and swaps. What each generation of it has
//! defined is its own: a new one may define a name in another way, and begins anew under it.

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, Opts, Result as Outcome,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

/// Names of one plugin.
const NAMES_MAX: usize = 64;

/// Time series of one plugin, all names together; a histogram is one here.
const SERIES_MAX: usize = 1000;

const NAME_BYTES_MAX: usize = 64;
const HELP_BYTES_MAX: usize = 256;
const LABELS_MAX: usize = 8;
const VALUE_BYTES_MAX: usize = 128;
const BUCKETS_MAX: usize = 32;

/// What the host itself adds to names and labels.
const SUFFIXES: [&str; 4] = ["_total", "_bucket", "_sum", "_count"];
const OWN_LABELS: [&str; 2] = ["plugin", "le"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyKind {
    Counter,
    Gauge,
    Histogram,
}

impl FamilyKind {
    pub fn as_str(self) -> &'static str {
        match self {
            FamilyKind::Counter => "counter",
            FamilyKind::Gauge => "gauge",
            FamilyKind::Histogram => "histogram",
        }
    }

    /// The name in /metrics. The kind is in it: plugins that use one name for different things stay apart.
    fn exported(self, name: &str) -> String {
        match self {
            FamilyKind::Counter => format!("hostler_plugin_counter_{name}_total"),
            FamilyKind::Gauge => format!("hostler_plugin_gauge_{name}"),
            FamilyKind::Histogram => format!("hostler_plugin_histogram_{name}"),
        }
    }
}

/// A metric as its plugin defines it.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    pub kind: FamilyKind,
    pub help: String,
    pub labels: Vec<String>,
    /// Upper bounds, in order; for histograms only.
    pub buckets: Vec<f64>,
}

/// Why a metric cannot be had, or a value of it not be noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// More than a plugin may have.
    TooMuch(String),
    /// Not what a metric is.
    Wrong(String),
}

type Noted<T> = Result<T, Refusal>;

fn wrong<T>(message: String) -> Noted<T> {
    Err(Refusal::Wrong(message))
}

impl Definition {
    fn check(&self, name: &str) -> Noted<()> {
        let what = format!("metric {:?}", cut(name));
        if !is_name(name) || name.len() > NAME_BYTES_MAX {
            return wrong(format!(
                "{what}: a name has 1 to {NAME_BYTES_MAX} letters, digits and '_', and begins with no digit"
            ));
        }
        if let Some(suffix) = SUFFIXES.iter().find(|suffix| name.ends_with(**suffix)) {
            return wrong(format!("{what}: \"{suffix}\" is added by the host; leave it out"));
        }
        if self.help.trim().is_empty() || self.help.len() > HELP_BYTES_MAX {
            let length = self.help.len();
            return wrong(format!("{what}: its help has {length} bytes; it must have 1 to {HELP_BYTES_MAX}"));
        }
        if self.labels.len() > LABELS_MAX {
            let count = self.labels.len();
            return Err(Refusal::TooMuch(format!(
                "{what}: {count} labels; at most {LABELS_MAX} are allowed"
            )));
        }
        for (place, label) in self.labels.iter().enumerate() {
            let shown = cut(label);
            if !is_name(label) || label.len() > NAME_BYTES_MAX || label.starts_with("__") {
                return wrong(format!("{what}: {shown:?} is no name of a label"));
            }
            if OWN_LABELS.contains(&label.as_str()) {
                return wrong(format!("{what}: the label {shown:?} is the host's own"));
            }
            if self.labels[..place].contains(label) {
                return wrong(format!("{what}: the label {shown:?} is there twice"));
            }
        }
        if self.kind == FamilyKind::Histogram {
            if self.buckets.len() > BUCKETS_MAX {
                let count = self.buckets.len();
                let message = format!("{what}: {count} buckets; at most {BUCKETS_MAX} are allowed");
                return Err(Refusal::TooMuch(message));
            }
            let rising = self.buckets.windows(2).all(|pair| pair[0] < pair[1]);
            if self.buckets.is_empty() || !rising || !self.buckets.iter().all(|bound| bound.is_finite()) {
                return wrong(format!("{what}: buckets are 1 to {BUCKETS_MAX} rising numbers"));
            }
        }
        Ok(())
    }

    fn described(&self) -> String {
        let mut text = format!("a {} with ", self.kind.as_str());
        match self.labels.as_slice() {
            [] => text += "no labels",
            labels => text += &format!("the labels {}", labels.join(", ")),
        }
        if self.kind == FamilyKind::Histogram {
            text += &format!(", the buckets {:?}", self.buckets);
        }
        text + &format!(" and the help {:?}", self.help)
    }
}

fn is_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(good) && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

/// A metric of a plugin, with its time series.
pub struct Family {
    name: String,
    definition: Definition,
    vector: Vector,
    series: RwLock<HashMap<Vec<String>, Series>>,
}

enum Vector {
    Counter(CounterVec),
    Gauge(GaugeVec),
    Histogram(HistogramVec),
}

#[derive(Clone)]
enum Series {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

/// What happens to a value.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    Add(f64),
    Set(f64),
    Observe(f64),
}

impl Family {
    fn new(plugin: &str, name: &str, definition: Definition) -> Outcome<Self> {
        let exported = definition.kind.exported(name);
        let labels: Vec<&str> = definition.labels.iter().map(String::as_str).collect();
        let opts = Opts::new(exported, definition.help.clone()).const_label("plugin", plugin);
        let vector = match definition.kind {
            FamilyKind::Counter => Vector::Counter(CounterVec::new(opts, &labels)?),
            FamilyKind::Gauge => Vector::Gauge(GaugeVec::new(opts, &labels)?),
            FamilyKind::Histogram => {
                let opts = HistogramOpts::from(opts).buckets(definition.buckets.clone());
                Vector::Histogram(HistogramVec::new(opts, &labels)?)
            }
        };
        Ok(Family { name: name.to_owned(), definition, vector, series: RwLock::default() })
    }

    /// Changes the value of the series with these values of its labels, in their order. `has_room` is asked if there
    /// is none yet.
    fn change(&self, values: Vec<String>, change: Change, has_room: impl FnOnce() -> bool) -> Noted<()> {
        let what = || format!("metric \"{}\"", self.name);
        let (Change::Add(value) | Change::Set(value) | Change::Observe(value)) = change;
        if !value.is_finite() {
            return wrong(format!("{}: {value} is no number to note", what()));
        }
        match (self.series(values, has_room)?, change) {
            (Series::Counter(_), Change::Add(by)) if by < 0.0 => {
                wrong(format!("{}: a counter only grows, but {by} was added", what()))
            }
            (Series::Counter(counter), Change::Add(by)) => {
                counter.inc_by(by);
                Ok(())
            }
            (Series::Gauge(gauge), Change::Add(by)) => {
                gauge.add(by);
                Ok(())
            }
            (Series::Gauge(gauge), Change::Set(value)) => {
                gauge.set(value);
                Ok(())
            }
            (Series::Histogram(histogram), Change::Observe(value)) => {
                histogram.observe(value);
                Ok(())
            }
            _ => wrong(format!("{} is a {}", what(), self.definition.kind.as_str())),
        }
    }

    fn series(&self, values: Vec<String>, has_room: impl FnOnce() -> bool) -> Noted<Series> {
        if let Some(series) = self.series.read().unwrap_or_else(PoisonError::into_inner).get(&values) {
            return Ok(series.clone());
        }
        let what = format!("metric \"{}\"", self.name);
        let labels = &self.definition.labels;
        if values.len() != labels.len() {
            let (wanted, given) = (labels.len(), values.len());
            return wrong(format!("{what} has {wanted} labels ({}), not {given}", labels.join(", ")));
        }
        if let Some((label, value)) =
            labels.iter().zip(&values).find(|(_, value)| value.len() > VALUE_BYTES_MAX)
        {
            let length = value.len();
            return Err(Refusal::TooMuch(format!(
                "{what}: the value of \"{label}\" has {length} bytes; at most {VALUE_BYTES_MAX} are allowed"
            )));
        }
        // Calls at the same time may each find the last room, so a few more than the bound can come to be.
        if !has_room() {
            return Err(Refusal::TooMuch(format!(
                "{what}: the plugin has {SERIES_MAX} time series already, with all its metrics together; no other \
                 values of its labels can be noted"
            )));
        }
        let texts: Vec<&str> = values.iter().map(String::as_str).collect();
        let made = match &self.vector {
            Vector::Counter(vector) => vector.get_metric_with_label_values(&texts).map(Series::Counter),
            Vector::Gauge(vector) => vector.get_metric_with_label_values(&texts).map(Series::Gauge),
            Vector::Histogram(vector) => vector.get_metric_with_label_values(&texts).map(Series::Histogram),
        };
        let series = made.map_err(|error| Refusal::Wrong(format!("{what}: {error}")))?;
        self.series.write().unwrap_or_else(PoisonError::into_inner).insert(values, series.clone());
        Ok(series)
    }

    fn len(&self) -> usize {
        self.series.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        match &self.vector {
            Vector::Counter(vector) => vector.collect(),
            Vector::Gauge(vector) => vector.collect(),
            Vector::Histogram(vector) => vector.collect(),
        }
    }
}

/// What the plugin of one name has counted, whatever generation of it did.
#[derive(Default)]
struct RegisteredFamily {
    families: Mutex<BTreeMap<String, Arc<Family>>>,
}

impl RegisteredFamily {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Family>>> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All plugins that have metrics of their own, by their names, as long as a generation of theirs is there.
#[derive(Default)]
pub(super) struct Plugins(Mutex<HashMap<Arc<str>, Weak<RegisteredFamily>>>);

impl Plugins {
    pub fn families(&self, plugin: &Arc<str>) -> Families {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, kept| kept.strong_count() > 0);
        let kept = all.get(plugin).and_then(Weak::upgrade).unwrap_or_else(|| {
            let kept = Arc::<RegisteredFamily>::default();
            all.insert(Arc::clone(plugin), Arc::downgrade(&kept));
            kept
        });
        Families { plugin: Arc::clone(plugin), kept, defined: Mutex::default() }
    }
}

/// The metrics that one generation of a plugin has defined.
pub struct Families {
    plugin: Arc<str>,
    kept: Arc<RegisteredFamily>,
    defined: Mutex<HashMap<String, Arc<Family>>>,
}

impl Families {
    /// The metric of this name: the same one each time, and what an earlier generation has counted if it was defined
    /// in the same way.
    pub fn define(&self, name: &str, definition: Definition) -> Noted<Arc<Family>> {
        let mut defined = self.defined.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(family) = defined.get(name) {
            if family.definition == definition {
                return Ok(Arc::clone(family));
            }
            let (known, new) = (family.definition.described(), definition.described());
            return wrong(format!("metric \"{name}\" is {known} already, and cannot be {new}"));
        }
        definition.check(name)?;
        if defined.len() >= NAMES_MAX {
            return Err(Refusal::TooMuch(format!(
                "metric \"{name}\": the plugin has {NAMES_MAX} metrics already, which is as many as it may have"
            )));
        }
        let mut kept = self.kept.lock();
        let family = match kept.get(name).filter(|family| family.definition == definition) {
            Some(family) => Arc::clone(family),
            None => {
                // What no generation uses any more makes room.
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

    /// Changes a value of one of these metrics, in the series with these values of its labels, in their order.
    pub fn change(&self, family: &Family, values: Vec<String>, change: Change) -> Noted<()> {
        family.change(values, change, || {
            let defined = self.defined.lock().unwrap_or_else(PoisonError::into_inner);
            defined.values().map(|family| family.len()).sum::<usize>() < SERIES_MAX
        })
    }

    pub fn plugin(&self) -> &Arc<str> {
        &self.plugin
    }

    /// All that is to be shown, as this generation has defined it: also what it has not defined yet.
    pub(super) fn shown(&self) -> BTreeMap<String, Arc<Family>> {
        let mut shown = self.kept.lock().clone();
        let defined = self.defined.lock().unwrap_or_else(PoisonError::into_inner);
        shown.extend(defined.iter().map(|(name, family)| (name.clone(), Arc::clone(family))));
        shown
    }
}

/// The metrics of plugins as families of /metrics; where two generations of one disagree, the first one counts.
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
        // The next generation has other names, and as many; those of the old one go with it.
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
