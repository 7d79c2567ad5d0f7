//! A pipeline of a plan: its graph, and where its keys are in the manifest.

use crate::error::Error;
use crate::graph::{Fault, Graph};
use crate::policy::diagnostic::{Diagnostic, Diagnostics};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// A graph, and where it is in the manifest.
#[derive(Clone, Debug)]
pub struct PipelinePlan {
    pub graph: Arc<Graph>,
    pub(super) keys: Arc<KeySpans>,
}

/// Where the keys of a pipeline are, for faults that are found only once its models are loaded.
#[derive(Debug)]
pub(super) struct KeySpans {
    pub path: PathBuf,
    pub text: Arc<str>,
    /// By key, such as `steps.big.in.x`.
    pub spans: BTreeMap<String, Range<usize>>,
}

impl PipelinePlan {
    /// Returns faults as an error that shows the lines of the manifest.
    pub fn refusal(&self, faults: Vec<Fault>) -> Error {
        let shown = self.diagnostics(faults).to_string();
        Error::invalid(shown.strip_prefix("error: ").unwrap_or(&shown).trim_end()).laid_out()
    }

    fn diagnostics(&self, faults: Vec<Fault>) -> Diagnostics {
        let KeySpans { path, text, spans } = &*self.keys;
        let faults = faults.into_iter().map(|fault| placed(&self.graph.name, fault, spans, text)).collect();
        Diagnostics::new(path, text, faults)
    }
}

/// Returns a fault with its path in the message, at the nearest key that is written.
pub(super) fn placed(
    pipeline: &str,
    fault: Fault,
    spans: &BTreeMap<String, Range<usize>>,
    text: &str,
) -> Diagnostic {
    let Fault { place, message, hint, within } = fault;
    let mut key = place.as_str();
    let span = loop {
        if let Some(span) = spans.get(key) {
            break Some(span.clone());
        }
        if key.is_empty() {
            break None;
        }
        key = key.rsplit_once('.').map_or("", |(before, _)| before);
    };
    let span = span.map(|span| match within {
        // A part of the text can be shown if the text is written without escapes.
        Some(part)
            if key == place
                && text.get(span.clone()).is_some_and(|text| {
                    text.starts_with('"') && !text.starts_with("\"\"\"") && !text.contains('\\')
                }) =>
        {
            let start = (span.start + 1 + part.start).min(span.end.saturating_sub(1));
            start..(span.start + 1 + part.end).clamp(start + 1, span.end.max(start + 1))
        }
        _ => span,
    });
    let place = if place.is_empty() { String::new() } else { format!(": {place}") };
    let mut diagnostic = Diagnostic::new(format!("pipeline \"{pipeline}\"{place}: {message}"));
    diagnostic.span = span;
    diagnostic.hint = hint;
    diagnostic
}
