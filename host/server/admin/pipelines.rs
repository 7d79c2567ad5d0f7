//! `/admin/pipelines`: the pipelines of the live policy, with the counts of their steps since the
//! host started.

use super::query::Query;
use crate::error::{Error, Result, did_you_mean};
use crate::executor::PipelineModel;
use crate::executor::pipeline::{StepLimit, StepMetrics, StepOutcome};
use crate::graph;
use crate::policy::{Policy, Route};
use crate::server::http::{self, Reply};
use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde_json::{Value, json};
use std::sync::Arc;

/// Returns the routes that are pipelines.
fn routes(policy: &Policy) -> impl Iterator<Item = (&Arc<Route>, &PipelineModel)> {
    let routes = policy.content.models().flat_map(|(_, model)| model.versions.values());
    routes.filter_map(|route| Some((route, PipelineModel::of(&*route.callable)?)))
}

/// Returns each pipeline with the models that it serves as, and whether each can run now.
pub fn list(policy: &Policy) -> Value {
    let mut pipelines = serde_json::Map::new();
    for (route, pipeline) in routes(policy) {
        let name = pipeline.program().graph.name.to_string();
        let entry = pipelines
            .entry(name)
            .or_insert_with(|| json!({"models": [], "steps": pipeline.program().graph.steps.len()}));
        if let Some(models) = entry["models"].as_array_mut() {
            let why = route.callable.ready().err().map(|error| error.message().to_owned());
            models.push(json!({"model": route.name.to_string(), "ready": why.is_none(), "reason": why}));
        }
    }
    json!({"pipelines": pipelines})
}

/// Returns one pipeline: its graph as data, or as text, Mermaid or Graphviz source if the query is
/// `graph=text`, `graph=mermaid`, `graph=dot` or `graph=svg`.
pub fn reply(policy: &Policy, name: &str, query: Option<&str>) -> Result<Reply> {
    let found = routes(policy).find(|(_, pipeline)| *pipeline.program().graph.name == *name);
    let Some((_, pipeline)) = found else {
        let name: String = name.chars().take(80).collect();
        let known = routes(policy).map(|(_, pipeline)| &*pipeline.program().graph.name);
        let hint = did_you_mean(&name, known);
        return Err(Error::not_found(format!("no model serves a pipeline \"{name}\"{hint}")));
    };
    let graph = &pipeline.program().graph;
    let query = Query::parse(query, &["graph"])?;
    let text = match query.text("graph") {
        None => return Ok(http::json_of(StatusCode::OK, &shown(pipeline))),
        Some("text") => graph::text(graph),
        Some("mermaid") => graph::mermaid(graph),
        Some("dot") => graph::dot(graph),
        Some("svg") => {
            let svg = HeaderValue::from_static("image/svg+xml; charset=utf-8");
            return Ok(http::sandboxed(svg, graph::svg(graph)));
        }
        Some(other) => {
            let other: String = other.chars().take(80).collect();
            let message = format!("graph is \"{other}\"; write svg, mermaid, dot or text");
            return Err(Error::invalid(message).field("graph"));
        }
    };
    Ok(http::text(StatusCode::OK, text))
}

fn shown(pipeline: &PipelineModel) -> Value {
    let program = pipeline.program();
    let steps: serde_json::Map<String, Value> = program
        .graph
        .steps
        .iter()
        .enumerate()
        .map(|(at, step)| {
            let metrics = pipeline.metrics().get(at);
            let counts: serde_json::Map<String, Value> = StepOutcome::ALL
                .iter()
                .map(|outcome| (outcome.as_str().to_owned(), metrics.map_or(0, |metrics| metrics.total(*outcome).0).into()))
                .collect();
            let (ok, seconds) = metrics.map_or((0, 0.0), |metrics| metrics.total(StepOutcome::Ok));
            let mean_ms = if ok == 0 { None } else { Some((seconds / ok as f64 * 1e6).round() / 1e3) };
            let limit = pipeline.limits().get(at).and_then(Option::as_ref);
            let value = json!({
                "model": step.version.as_ref().map_or_else(|| step.model.to_string(), |version| format!("{}:{version}", step.model)),
                "runs": counts,
                "mean_ms": mean_ms,
                "queue_s": metrics.map_or(0.0, StepMetrics::queued),
                "in_flight": limit.map(StepLimit::in_flight),
            });
            (step.name.to_string(), value)
        })
        .collect();
    json!({
        "pipeline": &*program.graph.name,
        "graph": program.graph.entries(),
        "steps": steps,
        "mermaid": graph::mermaid(&program.graph),
    })
}
