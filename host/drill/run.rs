//! A drill from start to report.

use super::copy::Copy;
use super::exercises::{self, EXERCISES};
use super::fixture::Fixture;
use super::host::{Host, Usage};
use super::options::Options;
use super::report::{Report, Row, Verdict};
use super::samples;
use crate::app;
use crate::error::{Error, Result};
use crate::output;
use crate::policy::files::Files;
use crate::policy::plan::Plan;
use std::time::Duration;

/// Runs the drill and prints its report. Returns true if every exercise passed.
pub fn run(options: &Options) -> Result<bool> {
    let mut signals = app::signals()?;
    // The drill ends its host and removes its copy: neither takes long.
    signals.serving(Duration::ZERO);
    let files = Files::default();
    let plan = Plan::read(&app::absolute(&options.manifest)?, &files).map_err(app::unplanned)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| Error::failed(format!("cannot start a runtime: {error}")))?;
    let report = runtime.block_on(async {
        // Whichever branch ends, the host and the copy are dropped with their values.
        tokio::select! {
            report = drill(options, plan, &files) => report,
            signal = signals.stop() => {
                Err(Error::cancelled(format!("{signal}: the drill was stopped, and its host and copy removed")))
            }
        }
    })?;
    if options.json {
        output::print_json(report.json());
    } else {
        output::print_text(report.table());
    }
    Ok(report.passed)
}

async fn drill(options: &Options, plan: Plan, files: &Files) -> Result<Report> {
    let copy = Copy::make(&plan, files)?;
    output::report(format_args!("drill: starting a copy of {}", options.manifest.display()));
    let host = Host::start(&copy).await?;
    let (samples, models) = samples::gather(&plan, files, host.http).await?;
    if samples.is_empty() {
        let why: Vec<String> = models
            .iter()
            .map(|model| {
                let why = model.no_sample.as_deref().unwrap_or_default();
                output::one_line(&format!("model \"{}\": {why}", model.model)).into_owned()
            })
            .collect();
        return Err(Error::invalid(format!(
            "no model can be called, so there is nothing to drill\n{}\nadd to a model: checks = [{{ file = \
             \"checks.json\" }}], with requests and their answers: see docs/reference/manifest.md",
            why.join("\n")
        ))
        .laid_out());
    }
    let connections = options.connections.clamp(1, plan.settings.limits.max_connections);
    let mut fixture = Fixture::new(plan, copy, host, samples, connections, options);
    let mut exercises: Vec<Row> = Vec::new();
    let (mut before, mut after) = (None, Usage::default());
    for name in EXERCISES {
        if !options.only.is_empty() && !options.only.iter().any(|only| only == name) {
            continue;
        }
        if let Some(status) = fixture.host.ended() {
            exercises.push(Row::skipped(name, format!("the host ended earlier, with {status}")));
            continue;
        }
        output::report(format_args!("drill: {name}"));
        exercises.extend(exercises::run(&mut fixture, name).await);
        if fixture.host.ended().is_none() {
            after = fixture.host.usage();
            before.get_or_insert(after);
        }
    }
    let passed = exercises.iter().all(|row| row.verdict != Verdict::Fail);
    Ok(Report {
        manifest: options.manifest.display().to_string(),
        passed,
        connections,
        seconds: options.time.as_secs_f64(),
        models,
        exercises,
        process_before: before.unwrap_or_default(),
        process_after: after,
    })
}
