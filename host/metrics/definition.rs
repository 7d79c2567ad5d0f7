//! A metric as a plugin defines it, and the checks of such a definition.

const NAME_BYTES_MAX: usize = 64;
const HELP_BYTES_MAX: usize = 256;
const LABELS_MAX: usize = 8;
const BUCKETS_MAX: usize = 32;

/// The host adds these suffixes and labels itself.
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

    /// Returns the name in `/metrics`. It contains the kind, so that plugins that use one name for
    /// different kinds do not collide.
    pub(super) fn exported(self, name: &str) -> String {
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
    /// Upper bounds in ascending order; for histograms only.
    pub buckets: Vec<f64>,
}

/// Why a metric or a value of it is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A limit of the plugin is reached.
    TooMuch(String),
    /// The definition or the value is invalid.
    Wrong(String),
}

pub(super) type Noted<T> = Result<T, Refusal>;

pub(super) fn wrong<T>(message: String) -> Noted<T> {
    Err(Refusal::Wrong(message))
}

impl Definition {
    pub(super) fn check(&self, name: &str) -> Noted<()> {
        let what = format!("metric {:?}", cut(name));
        if !is_name(name) || name.len() > NAME_BYTES_MAX {
            return wrong(format!(
                "{what}: a name has 1 to {NAME_BYTES_MAX} letters, digits and '_', and does not begin with a digit"
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
                return wrong(format!("{what}: {shown:?} is not a label name"));
            }
            if OWN_LABELS.contains(&label.as_str()) {
                return wrong(format!("{what}: the label {shown:?} is reserved for the host"));
            }
            if self.labels[..place].contains(label) {
                return wrong(format!("{what}: the label {shown:?} is given twice"));
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
                return wrong(format!(
                    "{what}: buckets must be 1 to {BUCKETS_MAX} finite, increasing numbers"
                ));
            }
        }
        Ok(())
    }

    pub(super) fn described(&self) -> String {
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
