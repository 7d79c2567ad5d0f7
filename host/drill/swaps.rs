//! Swaps of everything that a reload can change, damage and its repair, and rollbacks, all under
//! load.

use super::files::{other_component, other_model, read, replace};
use super::fixture::{ExerciseResult, Fixture};
use super::pace::Pace;
use crate::error::{Error, Result};
use crate::policy::plan::{ExecutorKind, ExecutorPlan, SourcePlan};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Instant;

/// Changes the length of a queue, which replaces the executor and cannot change an answer.
pub async fn manifest(fixture: &mut Fixture, until: Instant) -> Result<ExerciseResult> {
    let executors = fixture.executors_in_use();
    let mut pace = Pace::new(fixture, until);
    while let Some(number) = pace.turn().await {
        lengthen_queue(fixture, &executors, number);
        let before = fixture.host.mark().await?;
        fixture.copy.write_manifest()?;
        fixture.go_live(&before).await?;
    }
    Ok(ExerciseResult::done(pace.done, "queue length changes"))
}

/// Sets another length for one of the queues, never its current one.
fn lengthen_queue(fixture: &mut Fixture, executors: &[String], number: usize) {
    let executor = &executors[number % executors.len()];
    let round = number / executors.len();
    let queue = fixture.queue(executor).min((1 << 20) - 2) + 1 + round % 2;
    fixture.copy.table(&["executors", executor]).insert("queue".into(), (queue as i64).into());
}

/// Each content is new to the cache, so each swap compiles.
pub async fn plugins(fixture: &mut Fixture, until: Instant) -> Result<ExerciseResult> {
    let files = fixture.copy.plugins.clone();
    swap_files(fixture, until, &files, other_component)
        .await
        .map(|done| ExerciseResult::done(done, "plugins replaced"))
}

pub async fn models(fixture: &mut Fixture, until: Instant) -> Result<ExerciseResult> {
    let files = fixture.copy.models.clone();
    swap_files(fixture, until, &files, other_model)
        .await
        .map(|done| ExerciseResult::done(done, "models replaced"))
}

async fn swap_files(
    fixture: &mut Fixture,
    until: Instant,
    files: &[(String, PathBuf)],
    other: impl Fn(&[u8]) -> Vec<u8>,
) -> Result<usize> {
    let originals = files.iter().map(|(_, file)| read(file)).collect::<Result<Vec<_>>>()?;
    let mut pace = Pace::new(fixture, until).at_least(files.len());
    while let Some(number) = pace.turn().await {
        let index = number % files.len();
        let (name, file) = &files[index];
        let before = fixture.host.mark().await?;
        fixture.copy.swap(file, &other(&originals[index]))?;
        fixture.go_live(&before).await.map_err(|error| error.context(name))?;
    }
    Ok(pace.done)
}

/// Returns the models that can move, with the executors that compute the same for them; their own
/// comes first.
pub fn movable(fixture: &Fixture) -> Vec<(String, Vec<String>)> {
    let plan = &fixture.plan;
    let destinations = |(name, model): (&_, &crate::policy::plan::ModelPlan)| {
        let own = plan.base(&model.executor).1.sessions();
        let others = plan.executors.iter().filter(|(other, executor)| {
            let takes_it = match (&model.source, executor) {
                (SourcePlan::Onnx { .. }, ExecutorPlan::Pool { sessions, .. }) => {
                    own.is_some_and(|own| sessions.device == own.device)
                }
                (SourcePlan::Plugin(_), _) => executor.kind() == ExecutorKind::ThreadPool,
                (SourcePlan::Pipeline(_), _) => executor.kind() == ExecutorKind::Pipeline,
                // The plugin of a custom executor may change the answers.
                (_, ExecutorPlan::Custom { .. }) => false,
                (_, ExecutorPlan::Pipeline { .. }) => false,
                // A remote is not known to serve the same model.
                (SourcePlan::Remote { .. }, _) | (_, ExecutorPlan::Triton { .. }) => false,
            };
            **other != model.executor && takes_it
        });
        let executors: Vec<String> = std::iter::once(&model.executor)
            .chain(others.map(|(other, _)| other))
            .map(ToString::to_string)
            .collect();
        (executors.len() > 1).then(|| (ToString::to_string(name), executors))
    };
    plan.models.iter().filter_map(destinations).collect()
}

pub async fn moves(fixture: &mut Fixture, until: Instant) -> Result<ExerciseResult> {
    let models = movable(fixture);
    let mut pace = Pace::new(fixture, until).at_least(models.len());
    while let Some(number) = pace.turn().await {
        let (model, executors) = &models[number % models.len()];
        // First away from the model's own executor, later back.
        let executor = &executors[(number / models.len() + 1) % executors.len()];
        let before = fixture.host.mark().await?;
        fixture.copy.set_route(model, executor);
        fixture.copy.write_manifest()?;
        let moved = fixture.go_live(&before).await;
        moved.map_err(|error| error.context(format!("model \"{model}\" to executor \"{executor}\"")))?;
    }
    Ok(ExerciseResult::done(pace.done, "moves to another executor"))
}

/// A file, with its good and its damaged content.
struct Damage {
    what: String,
    file: PathBuf,
    good: Vec<u8>,
    bad: Vec<u8>,
}

/// Half a plugin, an empty model, a manifest with a fault. Each must be refused with a reason, and
/// is then repaired.
pub async fn damage(fixture: &mut Fixture, until: Instant) -> Result<ExerciseResult> {
    let mut damages = Vec::new();
    for (name, file) in &fixture.copy.plugins {
        let good = read(file)?;
        let bad = good[..good.len() / 2].to_vec();
        damages.push(Damage {
            what: format!("half of the plugin \"{name}\""),
            file: file.clone(),
            good,
            bad,
        });
    }
    for (name, file) in &fixture.copy.models {
        let (what, bad) = (format!("an empty file as the model \"{name}\""), Vec::new());
        damages.push(Damage { what, file: file.clone(), good: read(file)?, bad });
    }
    let file = fixture.copy.manifest_path();
    let good = read(&file)?;
    let bad = [&good[..], b"\n[drill-fault]\n"].concat();
    damages.push(Damage { what: "a manifest with an unknown table".into(), file, good, bad });

    let mut pace = Pace::new(fixture, until).at_least(damages.len());
    while let Some(number) = pace.turn().await {
        let damage = &damages[number % damages.len()];
        let before = fixture.host.mark().await?;
        replace(&damage.file, &damage.bad)?;
        let refused = fixture.host.refused_after(&before).await;
        // Repaired in any case, so that the next exercise starts from good files.
        replace(&damage.file, &damage.good)?;
        refused.map_err(|error| error.context(&damage.what))?;
        fixture.host.repaired().await.map_err(|error| error.context(&damage.what))?;
    }
    Ok(ExerciseResult::done(pace.done, "files damaged and repaired"))
}

/// Rolls back to the previous policy, and goes on with the next change.
pub async fn rollback(fixture: &mut Fixture, until: Instant) -> Result<ExerciseResult> {
    let executors = fixture.executors_in_use();
    let mut pace = Pace::new(fixture, until);
    while let Some(number) = pace.turn().await {
        let old = fixture.host.mark().await?;
        lengthen_queue(fixture, &executors, number);
        fixture.copy.write_manifest()?;
        fixture.go_live(&old).await?;
        let new = fixture.host.mark().await?;
        let (status, record) = fixture.host.rollback().await?;
        let back = fixture.host.mark().await?;
        if status != 200 || record["outcome"] != "rolled_back" {
            return Err(Error::failed(format!("a rollback returned {status} {}", Value::to_string(&record))));
        }
        if (back.generation, &back.digest) != (new.generation + 1, &old.digest) {
            return Err(Error::failed(format!(
                "a rollback from generation {} ({}) to {} went to generation {} ({})",
                new.generation, new.digest, old.digest, back.generation, back.digest
            )));
        }
    }
    Ok(ExerciseResult::done(pace.done, "changes rolled back"))
}
