//! Checks: requests that a model must answer as expected before it goes live.
//!
//! The same files of cases are run by `hostler test`. Numbers may differ by a tolerance; everything
//! else is compared exactly. For a model with 0..n responses, the result is a list of them.

mod answer;
mod case;
mod difference;

pub use answer::{CaseOptions, judge};
pub use case::{Case, CaseRequest, Expected, ExpectedError, WrittenTensor, parse, title, without_mark};
pub use difference::difference;

use super::content::PolicyContent;
use super::plan::CheckPlan;
use super::route::Route;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// Runs every case of one file through preprocess, model and postprocess.
pub(super) async fn run(
    policy: &Arc<PolicyContent>,
    route: &Route,
    check: &CheckPlan,
    content: &[u8],
    timeout: Duration,
    cancel: &Cancel,
) -> Result<()> {
    let path = check.file.path.display();
    let cases = parse_check(content).map_err(|error| error.context(format!("check {path}")))?;
    for (index, case) in cases.iter().enumerate() {
        let failed = |why: String| {
            let name = case.name.as_ref().map_or_else(String::new, |name| format!(" \"{name}\""));
            Error::failed(format!("check {path}[{index}]{name}: {why}"))
        };
        let Some(expected) = &case.expected else {
            return Err(failed(
                "it expects nothing; add expect, or let `hostler test --update` add it".to_owned(),
            ));
        };
        let options = CaseOptions { parameters: &case.parameters, timeout, cancel, steps: None };
        let answer = route.answer(policy, &case.request, options).await;
        if let (Err(error), false) = (&answer, matches!(expected, Expected::Error(_))) {
            return Err(error.clone().context(format!("check {path}[{index}] failed")));
        }
        if let Some(why) = judge(route, expected, &answer, check.tolerance) {
            return Err(failed(why));
        }
    }
    Ok(())
}

/// Parses a check of a manifest. It is one file, whose digest identifies all that it says.
pub fn parse_check(content: &[u8]) -> Result<Vec<Case>> {
    parse(content, &|_| -> Result<Bytes> {
        Err(Error::unsupported(
            "a check of a manifest names no other files; write the bytes as text or base64",
        ))
    })
}
