//! `hostler bench`: what one call of a plugin costs, and whether another build of it costs more.

use super::comparison::{Comparison, Verdict};
use crate::app;
use crate::cancel::Cancel;
use crate::cli::loaded::Loaded;
use crate::cli::request_file::RequestFile;
use crate::config::Instances;
use crate::error::{Error, Result, did_you_mean};
use crate::input_file::{FileKind, FileLimits};
use crate::output;
use crate::policy::files::Files;
use crate::policy::plan::Plan;
use crate::policy::{CaseOptions, CaseRequest, Route, RouteQuery};
use crate::predict::Response;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Calls before anything is measured: they fill caches and pools.
const WARM_UP: usize = 30;

/// Pairs of batches of a comparison.
const PAIRS: usize = 30;

/// How long one batch of a comparison takes at least, and how many calls it has at least.
const BATCH_TIME: Duration = Duration::from_millis(5);
const BATCH_CALLS: usize = 8;

pub struct Bench {
    pub request: PathBuf,
    pub manifest: PathBuf,
    /// The plugin that is measured fresh and reused, and replaced by `against`.
    pub plugin: Option<String>,
    /// Another build of the plugin.
    pub against: Option<PathBuf>,
    pub time: Duration,
}

/// `hostler bench`: returns false if the plugin costs more than the other build.
pub fn bench(bench: &Bench) -> Result<bool> {
    let request = RequestFile::read(&bench.request)?;
    let files = Files::default();
    let plan = Plan::read(&app::absolute(&bench.manifest)?, &files).map_err(app::unplanned)?;
    let plugin = chosen(&plan, bench.plugin.as_deref())?;
    let data = CaseRequest::Data(request.data.clone());
    let limits = plan.plugins[&plugin].limits.clone();
    output::print(format_args!(
        "plugin \"{plugin}\", model \"{}\", {}; microseconds per call",
        request.model,
        bench.request.display()
    ));
    let kinds: &[(Instances, &str)] = match limits.instances {
        Some(Instances::Shared) => &[(Instances::Shared, "shared")],
        _ => &[(Instances::Reused, "reused"), (Instances::Fresh, "fresh")],
    };
    output::print("instances      calls     p50     p99  preprocess   model  postprocess");
    for (instances, name) in kinds {
        let mut plan = plan.clone();
        plan.plugins.get_mut(&plugin).expect("invariant: chosen").limits.instances = Some(*instances);
        let side = Side::load(plan, &files, &request, &data)?;
        side.measure(name, bench.time)?;
    }
    let Some(against) = &bench.against else { return Ok(true) };
    let old = files
        .file(&app::absolute(against)?, FileLimits::default().of(FileKind::Plugin))
        .map_err(|error| error.context(format!("cannot read {}", against.display())))?;
    let mut other = plan.clone();
    other.plugins.get_mut(&plugin).expect("invariant: chosen").file = old;
    let new = Side::load(plan, &files, &request, &data)?;
    let old = Side::load(other, &files, &request, &data)?;
    let comparison = compare(&new, &old)?;
    let verdict = comparison.verdict();
    output::print(format_args!("against {}: {comparison}: {}", against.display(), verdict.as_str()));
    Ok(verdict != Verdict::Slower)
}

/// Returns the plugin of this name, or the only one.
fn chosen(plan: &Plan, name: Option<&str>) -> Result<Arc<str>> {
    let names: Vec<&str> = plan.plugins.keys().map(|name| &**name).collect();
    let all = names.join(", ");
    match (name, &names[..]) {
        (Some(name), _) if names.contains(&name) => Ok(name.into()),
        (Some(name), _) => {
            let hint = did_you_mean(name, names.iter().copied());
            Err(Error::not_found(format!("no plugin \"{name}\"{hint}; plugins: {all}")))
        }
        (None, [only]) => Ok((*only).into()),
        (None, []) => Err(Error::invalid("the manifest has no plugin to measure")),
        (None, _) => Err(Error::invalid(format!("name the plugin to measure with --plugin: {all}"))),
    }
}

/// A loaded manifest, and the request that is repeated.
struct Side<'a> {
    loaded: Loaded,
    route: Arc<Route>,
    request: &'a RequestFile,
    data: &'a CaseRequest,
    timeout: Duration,
}

impl<'a> Side<'a> {
    fn load(plan: Plan, files: &Files, request: &'a RequestFile, data: &'a CaseRequest) -> Result<Self> {
        let loaded = Loaded::new(plan, files)?;
        let query = RouteQuery { request_id: "bench", header: &|_| None };
        let route = loaded.content.resolve(&request.model, request.version.as_deref(), &query)?;
        let route = Arc::clone(route);
        let limits = &loaded.content.plan.settings.limits;
        let timeout =
            request.timeout.into_iter().chain(route.timeout).min().unwrap_or(limits.default_timeout);
        let timeout = timeout.min(limits.max_timeout);
        let side = Side { loaded, route, request, data, timeout };
        for _ in 0..WARM_UP {
            side.call()?;
        }
        Ok(side)
    }

    /// Makes one call, and returns its time and its responses.
    fn call(&self) -> Result<(Duration, Vec<Response>)> {
        let cancel = Cancel::default();
        let parameters = &self.request.parameters;
        let options = CaseOptions { parameters, timeout: self.timeout, cancel: &cancel, steps: None };
        let began = Instant::now();
        let responses =
            self.loaded.runtime.block_on(self.route.responses(&self.loaded.content, self.data, options))?;
        Ok((began.elapsed(), responses))
    }

    /// Measures for a time, and prints a row.
    fn measure(&self, name: &str, time: Duration) -> Result<()> {
        let (mut calls, mut input, mut infer, mut output) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let until = Instant::now() + time;
        while Instant::now() < until || calls.len() < BATCH_CALLS {
            let (took, responses) = self.call()?;
            calls.push(took);
            if let [response] = &responses[..] {
                input.push(response.service.input);
                infer.push(response.service.infer);
                output.push(response.service.output);
            }
        }
        let count = calls.len();
        let us = |times: &mut Vec<Duration>, share: f64| percentile(times, share);
        output::print(format_args!(
            "{name:<12} {count:>7} {} {} {:>11} {:>7} {:>12}",
            us(&mut calls, 0.5),
            us(&mut calls, 0.99),
            us(&mut input, 0.5).trim_start(),
            us(&mut infer, 0.5).trim_start(),
            us(&mut output, 0.5).trim_start(),
        ));
        Ok(())
    }

    /// Returns the median time of a call in a batch.
    fn batch(&self) -> Result<Duration> {
        let (began, mut calls) = (Instant::now(), Vec::new());
        while calls.len() < BATCH_CALLS || began.elapsed() < BATCH_TIME {
            calls.push(self.call()?.0);
        }
        calls.sort_unstable();
        Ok(calls[calls.len() / 2])
    }
}

/// Returns a percentile in microseconds, or a dash without values.
fn percentile(times: &mut [Duration], share: f64) -> String {
    times.sort_unstable();
    let at = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
    times.get(at).map_or_else(|| format!("{:>7}", "-"), |time| format!("{:>7.1}", time.as_secs_f64() * 1e6))
}

/// Compares two builds in pairs of batches. The order alternates, so that a machine that becomes
/// slower or faster meanwhile favours neither.
fn compare(new: &Side<'_>, old: &Side<'_>) -> Result<Comparison> {
    let mut ratios = Vec::with_capacity(PAIRS);
    for pair in 0..PAIRS {
        let (new, old) = match pair % 2 {
            0 => {
                let new = new.batch()?;
                (new, old.batch()?)
            }
            _ => {
                let old = old.batch()?;
                (new.batch()?, old)
            }
        };
        ratios.push(new.as_secs_f64() / old.as_secs_f64().max(1e-9));
    }
    Ok(Comparison::of(ratios))
}
