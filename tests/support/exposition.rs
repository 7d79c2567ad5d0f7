//! A strict parser of Prometheus' text format: any scraper accepts what it accepts.

use std::collections::{BTreeMap, BTreeSet};

/// Series, keyed by name and labels, with their values.
pub type Samples = BTreeMap<(String, BTreeMap<String, String>), f64>;

/// Parses all samples of an exposition. Panics with the first invalid line.
pub fn read(text: &str) -> Samples {
    assert!(text.ends_with('\n'), "the last line has no end");
    let (mut samples, mut families) = (Samples::new(), BTreeSet::new());
    let (mut family, mut kind) = (String::new(), String::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap_or_else(|| wrong(line, "no help text"));
            assert!(families.insert(name.to_owned()), "a family is there twice: {line}");
            unescaped(text, false).unwrap_or_else(|| wrong(line, "bad escape"));
            (family, kind) = (name.to_owned(), String::new());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, word) = rest.split_once(' ').unwrap_or_else(|| wrong(line, "no type"));
            assert!(name == family && kind.is_empty(), "a type without its help: {line}");
            assert!(["counter", "gauge", "histogram"].contains(&word), "{line}");
            kind = word.to_owned();
        } else {
            let (name, labels, value) = sample(line).unwrap_or_else(|| wrong(line, "no sample"));
            let suffix = name.strip_prefix(&family).unwrap_or_else(|| wrong(line, "of another family"));
            let known = match kind.as_str() {
                "histogram" => ["_bucket", "_sum", "_count"].contains(&suffix),
                _ => suffix.is_empty(),
            };
            assert!(known, "not of its family, a {kind}: {line}");
            assert!(kind != "counter" || value >= 0.0, "{line}");
            let twice = samples.insert((name, labels), value);
            assert!(twice.is_none(), "a series is there twice: {line}");
        }
    }
    histograms(&samples);
    samples
}

fn wrong(line: &str, why: &str) -> ! {
    panic!("{why}: {line}")
}

/// Checks that bucket counts never decrease and that the last bucket equals the count.
fn histograms(samples: &Samples) {
    let mut buckets: BTreeMap<_, Vec<(f64, f64)>> = BTreeMap::new();
    for ((name, labels), value) in samples {
        if let (Some(name), Some(bound)) = (name.strip_suffix("_bucket"), labels.get("le")) {
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().expect("a bound") };
            let mut others = labels.clone();
            others.remove("le");
            buckets.entry((name.to_owned(), others)).or_default().push((bound, *value));
        }
    }
    for ((name, labels), mut bounds) in buckets {
        bounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(bounds.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{name} {labels:?}: {bounds:?}");
        let last = bounds.last().expect("a bucket");
        let count = samples[&(format!("{name}_count"), labels.clone())];
        assert_eq!(*last, (f64::INFINITY, count), "{name} {labels:?}");
        assert!(samples.contains_key(&(format!("{name}_sum"), labels)), "{name} has no sum");
    }
}

fn sample(line: &str) -> Option<(String, BTreeMap<String, String>, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"")?;
            let close = closing_quote(after)?;
            is_name(label).then_some(())?;
            let twice = labels.insert(label.to_owned(), unescaped(&after[..close], true)?);
            twice.is_none().then_some(())?;
            rest = &after[close + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}')?;
    }
    let value = rest.strip_prefix(' ')?.parse().ok()?;
    is_name(name).then(|| (name.to_owned(), labels, value))
}

fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

/// Replaces escapes; `None` if an escape does not exist.
fn unescaped(text: &str, quotes: bool) -> Option<String> {
    let (mut plain, mut letters) = (String::new(), text.chars());
    while let Some(letter) = letters.next() {
        plain.push(match letter {
            '\\' => match letters.next()? {
                'n' => '\n',
                '\\' => '\\',
                '"' if quotes => '"',
                _ => return None,
            },
            letter => letter,
        });
    }
    Some(plain)
}
