//! `hostler check --as-key-file`: what the holder of a key may do.

use crate::access::{Access, CallerMemo, Presented, Verb};
use crate::error::{Error, Result};
use crate::input_file::{self, FileKind, FileLimits, Progress};
use crate::metrics::Metrics;
use crate::output;
use crate::policy::plan::Plan;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderValue};
use std::path::Path;
use std::sync::Arc;

/// Prints what the holder of the key or token in `file` may do with the models of a plan.
pub(super) fn print_rights(plan: &Plan, file: &Path) -> Result<()> {
    let Some(rules) = &plan.settings.access_rules else {
        output::print("no [server] access_rules: everyone may do everything");
        return Ok(());
    };
    let access = Access::open(rules, &Arc::new(Metrics::new()))?;
    let limit = FileLimits::default().of(FileKind::Request);
    let key = input_file::read(file, limit, &Progress::default())
        .map_err(|error| error.context(format!("cannot read {}", file.display())))?;
    let key = String::from_utf8_lossy(&key);
    let header = HeaderValue::from_str(&format!("Bearer {}", key.trim()))
        .map_err(|_| Error::invalid(format!("{} has no key or token in one line", file.display())))?;
    let headers = HeaderMap::from_iter([(AUTHORIZATION, header)]);
    let presented = Presented { headers: &headers, certificate: &Arc::default() };
    let caller = access.identify(presented, &CallerMemo::default())?;
    output::print(format_args!("{}:", caller.name()));
    for verb in Verb::ALL {
        let may = |model| access.allows(&caller, verb, model);
        let text = match verb {
            Verb::Metrics | Verb::Admin => {
                if may(None)? {
                    "yes".to_owned()
                } else {
                    "no".to_owned()
                }
            }
            Verb::Predict | Verb::Jobs | Verb::Read | Verb::Load => {
                let mut models = Vec::new();
                for name in plan.models.keys() {
                    if may(Some((&name.name, Some(&name.version))))? {
                        models.push(name.to_string());
                    }
                }
                if models.is_empty() { "no model".to_owned() } else { models.join(", ") }
            }
        };
        output::print(format_args!("  {}: {text}", verb.as_str()));
    }
    Ok(())
}
