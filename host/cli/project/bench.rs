//! `hostler bench`: what one call of a plugin costs, and whether another build of it costs more.

use super::comparison::{Comparison, Verdict};
use crate::app;
use crate::cli::loaded::Loaded;
use crate::cli::prepared::{Prepared, Times};
use crate::cli::request_file::Request;
use crate::config::Instances;
use crate::error::{Error, Result, did_you_mean};
use crate::input_file::{FileKind, FileLimits};
use crate::output;
use crate::policy::files::Files;
use crate::policy::plan::Plan;
use crate::predict::Service;
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
    let request = Request::read(&bench.request)?;
    let files = Files::default();
    let plan = Plan::read(&app::absolute(&bench.manifest)?, &files).map_err(app::unplanned)?;
    let plugin = chosen(&plan, bench.plugin.as_deref())?;
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
    output::print(
        "instances    calls      p50      p99  instantiate  preprocess    model  postprocess  release  memory KB  touched KB",
    );
    for (instances, name) in kinds {
        let mut plan = plan.clone();
        plan.plugins.get_mut(&plugin).expect("invariant: chosen").limits.instances = Some(*instances);
        let side = Side::load(plan, &files, &request)?;
        side.measure(name, &plugin, bench.time)?;
    }
    let Some(against) = &bench.against else { return Ok(true) };
    let old = files
        .file(&app::absolute(against)?, FileLimits::default().of(FileKind::Plugin))
        .map_err(|error| error.context(format!("cannot read {}", against.display())))?;
    let mut other = plan.clone();
    other.plugins.get_mut(&plugin).expect("invariant: chosen").file = old;
    let new = Side::load(plan, &files, &request)?;
    let old = Side::load(other, &files, &request)?;
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
struct Side<'a>(Prepared<'a>);

impl<'a> Side<'a> {
    fn load(plan: Plan, files: &Files, request: &'a Request) -> Result<Self> {
        let side = Side(Prepared::new(Loaded::new(plan, files)?, request, "bench")?);
        for _ in 0..WARM_UP {
            side.0.call(None)?;
        }
        Ok(side)
    }

    /// Measures for a time, and prints a row.
    fn measure(&self, name: &str, plugin: &str, time: Duration) -> Result<()> {
        let (mut calls, mut services) = (Vec::new(), Vec::new());
        let (made_before, seconds_before) = self.0.loaded.instantiations();
        let (faults, until) = (page_faults(), Instant::now() + time);
        while Instant::now() < until || calls.len() < BATCH_CALLS {
            let (took, responses) = self.0.call(None)?;
            calls.push(took);
            if let [response] = &responses[..] {
                services.push(response.service);
            }
        }
        let page_kb = rustix::param::page_size() as f64 / 1024.0;
        let touched = page_faults().saturating_sub(faults) as f64 * page_kb / calls.len() as f64;
        let (made, seconds) = self.0.loaded.instantiations();
        let made = made - made_before;
        let instantiate = (made > 0).then(|| (seconds - seconds_before) / made as f64 * 1e6);
        let memory = self.0.loaded.memory_largest(plugin).div_ceil(1024);
        let (count, calls) = (calls.len(), Times::new(calls));
        let us = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), |us| format!("{us:.1}"));
        let median = |part: fn(&Service) -> Duration| {
            us(Times::new(services.iter().map(part).collect()).percentile_us(0.5))
        };
        output::print(format_args!(
            "{name:<9} {count:>8} {:>8} {:>8} {:>12} {:>11} {:>8} {:>12} {:>8} {memory:>10} {touched:>11.1}",
            us(calls.percentile_us(0.5)),
            us(calls.percentile_us(0.99)),
            us(instantiate),
            median(|service| service.input),
            median(|service| service.infer),
            median(|service| service.output),
            median(|service| service.release),
        ));
        Ok(())
    }

    /// Returns the median time of a call in a batch.
    fn batch(&self) -> Result<Duration> {
        let (began, mut calls) = (Instant::now(), Vec::new());
        while calls.len() < BATCH_CALLS || began.elapsed() < BATCH_TIME {
            calls.push(self.0.call(None)?.0);
        }
        calls.sort_unstable();
        Ok(calls[calls.len() / 2])
    }
}

/// Returns how many pages of memory this process has touched for the first time, or again after
/// they were given back.
fn page_faults() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program, in parentheses, may have spaces.
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
    fields.split_whitespace().nth(7).and_then(|faults| faults.parse().ok()).unwrap_or_default()
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
