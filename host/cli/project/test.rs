//! `hostler test`: runs the cases of a file against the real components of a manifest, without a
//! server.

use super::entries::Entries;
use crate::app;
use crate::cancel::Cancel;
use crate::cli::loaded::Loaded;
use crate::error::{Error, Result};
use crate::input_file::{self, FileKind, FileLimits, Progress};
use crate::output;
use crate::policy::files::Files;
use crate::policy::plan::Plan;
use crate::policy::{
    Case, CaseOptions, Expected, PolicyContent, Route, RouteQuery, case_title, judge, parse_cases,
    without_mark,
};
use crate::predict::Payload;
use base64::Engine;
use bytes::Bytes;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub struct Test {
    pub cases: PathBuf,
    pub manifest: PathBuf,
    /// Numbers may differ by this much.
    pub tolerance: f64,
    /// Writes the answers into the file as the expected ones.
    pub update: bool,
    /// Only cases whose name contains this text run.
    pub only: Option<String>,
}

/// `hostler test [CASES]`: returns whether all cases passed.
pub fn test(test: &Test) -> Result<bool> {
    let shown = test.cases.display();
    let limit = FileLimits::default().of(FileKind::Check);
    let content = input_file::read(&test.cases, limit, &Progress::default())
        .map_err(|error| error.context(format!("cannot read the cases in {shown}")))?;
    let folder = test.cases.parent().unwrap_or(Path::new("")).to_owned();
    let read = |name: &str| -> Result<Bytes> {
        let asset = FileLimits::default().of(FileKind::Asset);
        input_file::read(&folder.join(name), asset, &Progress::default()).map(Bytes::from)
    };
    let cases = parse_cases(&content, &read).map_err(|error| error.context(&shown))?;
    let files = Files::default();
    let mut plan = Plan::read(&app::absolute(&test.manifest)?, &files).map_err(app::unplanned)?;
    // A check may be the same file, and must not fail before the cases are reported.
    plan.models.values_mut().for_each(|model| model.checks.clear());
    let loaded = Loaded::new(plan, &files)?;
    let mut counts = Counts::default();
    let mut updates = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let wanted =
            test.only.as_ref().is_none_or(|only| case.name.as_ref().is_some_and(|name| name.contains(only)));
        if !wanted {
            counts.skipped += 1;
            continue;
        }
        let title = case_title(index, case.name.as_deref());
        let began = Instant::now();
        let route = match route(&loaded.content, case) {
            Ok(route) => route,
            Err(error) => {
                counts.failed += 1;
                output::print(format_args!("FAILED {title}: {error}"));
                continue;
            }
        };
        let answer = loaded.runtime.block_on(ask(&loaded.content, &route, case));
        let ms = began.elapsed().as_secs_f64() * 1e3;
        let wrong = match &case.expected {
            Some(expected) => judge(&route, expected, &answer, test.tolerance),
            None => {
                Some("it expects nothing; run with --update to write the answer into the file".to_owned())
            }
        };
        match wrong {
            None => {
                counts.passed += 1;
                output::print(format_args!("ok     {title} ({ms:.1} ms)"));
            }
            Some(_) if test.update => match expectation(&route, &answer) {
                Ok(expectation) => {
                    counts.updated += 1;
                    updates.push((index, expectation));
                    output::print(format_args!("update {title} ({ms:.1} ms)"));
                }
                Err(why) => {
                    counts.failed += 1;
                    output::print(format_args!(
                        "FAILED {title} ({ms:.1} ms): cannot write the answer: {why}"
                    ));
                }
            },
            Some(why) => {
                counts.failed += 1;
                output::print(format_args!("FAILED {title} ({ms:.1} ms): {why}"));
                let detail = answer.as_ref().err().and_then(|error| error.detail());
                detail.into_iter().for_each(|detail| output::print_text(output::quoted_lines(detail)));
            }
        }
    }
    if !updates.is_empty() {
        update(&test.cases, &content, updates)?;
    }
    let Counts { passed, failed, updated, skipped } = counts;
    let mut summary = format!("{passed} passed, {failed} failed");
    if test.update {
        summary += &format!(", {updated} updated");
    }
    if test.only.is_some() {
        summary += &format!(", {skipped} skipped");
    }
    output::print(format_args!("{shown}: {summary}"));
    if passed + failed + updated == 0 {
        let why = match test.only {
            Some(_) => "--only must be a part of the name of a case",
            None => "it has no cases",
        };
        return Err(Error::invalid(format!("{shown}: no case ran: {why}")));
    }
    Ok(failed == 0)
}

#[derive(Default)]
struct Counts {
    passed: usize,
    failed: usize,
    updated: usize,
    skipped: usize,
}

/// Returns the model of a case: the one that it names, or the only one of the manifest.
fn route(content: &Arc<PolicyContent>, case: &Case) -> Result<Arc<Route>> {
    let query = RouteQuery { request_id: "test", header: &|_| None };
    let (name, version) = match &case.model {
        Some(model) => {
            model.split_once(':').map_or((model.as_str(), None), |(name, version)| (name, Some(version)))
        }
        None => {
            let names: Vec<&str> = content.models().map(|(name, _)| &**name).collect();
            let [only] = names[..] else {
                let names = names.join(", ");
                return Err(Error::invalid(format!("the case names no model; add model = one of {names}")));
            };
            (only, None)
        }
    };
    Ok(Arc::clone(content.resolve(name, version, &query)?))
}

async fn ask(content: &Arc<PolicyContent>, route: &Route, case: &Case) -> Result<Vec<Payload>> {
    let limits = &content.plan.settings.limits;
    let timeout: Duration = route.timeout.unwrap_or(limits.default_timeout).min(limits.max_timeout);
    let cancel = Cancel::default();
    let options = CaseOptions { parameters: &case.parameters, timeout, cancel: &cancel, steps: None };
    route.answer(content, &case.request, options).await
}

/// Returns the key and the value that expect this answer.
///
/// # Errors
/// If the answer has no form in a file of cases.
fn expectation(route: &Route, answer: &Result<Vec<Payload>>) -> Result<(&'static str, Value)> {
    let payloads = match answer {
        Ok(payloads) => payloads,
        Err(error) => {
            let mut value = json!({"kind": error.kind().as_str(), "message": error.message()});
            if let Some(field) = error.field_name() {
                value["field"] = field.into();
            }
            return Ok(("expect_error", value));
        }
    };
    if let ([Payload::Bytes { content_type, data }], false) = (&payloads[..], route.is_streaming()) {
        let (key, text) = match std::str::from_utf8(data) {
            Ok(text) => ("text", text.to_owned()),
            Err(_) => ("base64", base64::engine::general_purpose::STANDARD.encode(data)),
        };
        return Ok(("expect_body", json!({"content_type": content_type, key: text})));
    }
    let json = route.result_of(payloads)?;
    let result = serde_json::from_slice(&json)
        .map_err(|error| Error::unsupported(format!("the result cannot be compared: {error}")))?;
    Ok(("expect", result))
}

/// Replaces the expectations of cases in a file. All other keys keep their places and their text.
fn update(path: &Path, content: &[u8], updates: Vec<(usize, (&'static str, Value))>) -> Result<()> {
    let written = content;
    let content = without_mark(content);
    let is_list = content.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let shown = path.display();
    let failed = |error: std::io::Error| Error::unavailable(format!("cannot write {shown}: {error}"));
    if std::fs::read(path).map_err(failed)? != written {
        let message = format!("{shown} was changed while its cases ran; nothing was written: run again");
        return Err(Error::unavailable(message));
    }
    let unreadable = |error| Error::invalid(format!("{shown}: each case must be an object: {error}"));
    let mut cases: Vec<Entries> = match is_list {
        true => serde_json::from_slice(content).map_err(unreadable)?,
        false => vec![serde_json::from_slice(content).map_err(unreadable)?],
    };
    for (index, (key, value)) in updates {
        let Entries(entries) = &mut cases[index];
        entries.retain(|(known, _)| !Expected::KEYS.contains(&known.as_str()));
        let value = serde_json::value::to_raw_value(&value).expect("invariant: values are JSON");
        entries.push((key.to_owned(), value));
    }
    let text = match is_list {
        true => serde_json::to_string_pretty(&cases),
        false => serde_json::to_string_pretty(&cases[0]),
    };
    let text = text.expect("invariant: entries are JSON") + "\n";
    // The file that a link leads to is replaced, not the link.
    let target = std::fs::canonicalize(path).map_err(failed)?;
    let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let new = target.with_file_name(format!(".{name}.{:08x}", fastrand::u32(..)));
    let write = || {
        std::fs::OpenOptions::new().write(true).create_new(true).open(&new)?.write_all(text.as_bytes())?;
        std::fs::set_permissions(&new, std::fs::metadata(&target)?.permissions())?;
        std::fs::rename(&new, &target)
    };
    write().inspect_err(|_| drop(std::fs::remove_file(&new))).map_err(failed)
}
